"""onnxsim's structured pruning, as it comes: `python prune_onnxsim.py MODEL OUTPUT SPARSITY`.

Runs in an environment with `onnxsim==0.8.1`, where nothing of onnxopt is installed. Initializers that several nodes
read get a copy for each: otherwise it cuts one for one reader and breaks the others.
"""

import sys
from collections import Counter

import onnx
import onnxsim


def unshare(model: onnx.ModelProto) -> None:
    """Give every reader of an initializer its own."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    seen: Counter[str] = Counter()
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            seen[name] += 1
            if name in stored and seen[name] > 1:
                copy = model.graph.initializer.add()
                copy.CopyFrom(stored[name])
                copy.name = node.input[index] = f"{name}__{seen[name]}"


def main() -> None:
    """Simplify, prune, write."""
    model, output, sparsity = sys.argv[1:]
    simplified, _ = onnxsim.simplify(onnx.load(model))
    unshare(simplified)
    onnx.save(onnxsim.apply_structured_pruning(simplified, float(sparsity)), output)


if __name__ == "__main__":
    main()

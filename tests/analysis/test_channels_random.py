"""Mask equivalence on random graphs: layers put together at random, random keep sets."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_equivalence import assert_cut_equals_mask

from onnxopt.analysis.channels import ChannelGroups
from onnxopt.testing import outputs_of, parse_graph, random_feeds

LAYERS = (
    "conv",
    "depthwise",
    "grouped",
    "batchnorm",
    "act",
    "add",
    "mul",
    "concat",
    "split",
    "gate",
    "constant",
    "pool",
)


class Builder:
    """Text of a graph with tensors of shape [2, C, 5, 5]."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.weights: list[str] = []
        self.lines: list[str] = []
        self.tensors: list[tuple[str, int]] = []
        self.count = 0
        self.tensors = [(self.conv("x", 4, 6), 6)]

    def name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def weight(self, shape: str) -> str:
        name = self.name("w")
        self.weights.append(f"float[{shape}] {name}")
        return name

    def op(self, text: str) -> str:
        name = self.name("t")
        self.lines.append(f"{name} = {text}")
        return name

    def conv(self, source: str, inputs: int, outputs: int, group: int = 1) -> str:
        kernel, bias = self.weight(f"{outputs},{inputs // group},1,1"), self.weight(str(outputs))
        return self.op(f"Conv <group = {group}> ({source}, {kernel}, {bias})")

    def add(self, layer: str) -> None:
        """Put a layer behind a random tensor."""
        source, size = self.pick()
        if layer == "conv":
            made = [(self.conv(source, size, out := int(self.random.choice([4, 6, 12]))), out)]
        elif layer == "concat":
            extra, more = self.pick()
            made = [(self.op(f"Concat <axis = 1> ({source}, {extra})"), size + more)]
        elif layer == "split":
            made = [(self.name("t"), size // 2), (self.name("t"), size // 2)]
            self.lines.append(f"{made[0][0]}, {made[1][0]} = Split <axis = 1> ({source})")
        elif layer in {"depthwise", "grouped"}:
            made = [(self.conv(source, size, size, size if layer == "depthwise" else 2), size)]
        else:
            made = [(self.op(self.elementwise(layer, source, size)), size)]
        self.tensors += [(name, out) for name, out in made if out % 2 == 0 and out <= 24]

    def pick(self) -> tuple[str, int]:
        return self.tensors[self.random.integers(len(self.tensors))]

    def elementwise(self, layer: str, source: str, size: int) -> str:
        if layer in {"add", "mul"}:
            same = [t for t, s in self.tensors if s == size]
            return f"{layer.capitalize()} ({source}, {same[self.random.integers(len(same))]})"
        if layer == "gate":
            gate = self.conv(self.op(f"GlobalAveragePool ({source})"), size, size)
            return f"Mul ({self.op(f'Sigmoid ({gate})')}, {source})"
        if layer == "batchnorm":
            scale, shift, mean = (self.weight(str(size)) for _ in range(3))
            self.weights.append(f"float[{size}] v{mean} = {{{','.join('1' * size)}}}")
            return f"BatchNormalization ({source}, {scale}, {shift}, {mean}, v{mean})"
        if layer == "constant":
            return f"Add ({source}, {self.weight(f'{size},1,1')})"
        if layer == "pool":
            return f"MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> ({source})"
        return f"{self.random.choice(['Relu', 'Sigmoid', 'HardSwish', 'Tanh'])} ({source})"

    def text(self) -> str:
        size = sum(s for _, s in self.tensors)
        joined = self.op(f"Concat <axis = 1> ({', '.join(t for t, _ in self.tensors)})")
        flat = self.op(f"Flatten ({joined})")
        kernel = self.weight(f"{size * 25},3")
        body = "\n".join([*self.lines, f"y = MatMul ({flat}, {kernel})"])
        return f"(float[2,4,5,5] x) => (float[2,3] y) <{', '.join(self.weights)}> {{ {body} }}"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(LAYERS), min_size=1, max_size=14), st.integers(0, 1000))
def test_cut_equals_mask(layers: list[str], seed: int) -> None:
    builder = Builder(seed)
    for layer in layers:
        builder.add(layer)
    graph = parse_graph(builder.text(), seed=seed)
    a, b = (outputs_of(graph, random_feeds(graph, s))["y"] for s in (1, 2))
    assert np.abs(a - b).max() > 1e-3 * np.abs(a).max()
    found = ChannelGroups.of(graph)
    choice = {
        group.name: sorted(
            builder.random.permutation(group.size)[: builder.random.integers(1, group.size + 1)].tolist()
        )
        for group in found.free
    }
    assert choice
    assert_cut_equals_mask(graph, found, choice)

"""Mask equivalence and permutation on random graphs: layers put together at random, random keep sets."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_equivalence import assert_close, assert_cut_equals_mask, permuted

from onnxopt.analysis.channels import ChannelGroups, Policy
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
    "shuffle",
    "chunk",
    "attention",
    "layernorm",
    "groupnorm",
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
        elif layer == "chunk":
            made = [(name, size // 2) for name in self.chunk(source)]
        elif layer in {"depthwise", "grouped"}:
            made = [(self.conv(source, size, size, size if layer == "depthwise" else 2), size)]
        else:
            text = self.activation(source) if layer == "act" else self.elementwise(layer, source, size)
            made = [(self.op(text), size)]
        self.tensors += [(name, out) for name, out in made if out % 2 == 0 and out <= 24]

    def pick(self) -> tuple[str, int]:
        return self.tensors[self.random.integers(len(self.tensors))]

    def ints(self, *values: int) -> str:
        name = self.name("i")
        self.weights.append(f"int64[{len(values)}] {name} = {{{','.join(map(str, values))}}}")
        return name

    def reshape(self, source: str, *shape: int) -> str:
        return self.op(f"Reshape ({source}, {self.ints(*shape)})")

    def transpose(self, source: str, *order: int) -> str:
        return self.op(f"Transpose <perm = [{','.join(map(str, order))}]> ({source})")

    def chunk(self, source: str) -> list[str]:
        """Halves whose bound is computed from the shape."""
        length = self.op(f"Gather ({self.op(f'Shape ({source})')}, {self.ints(1)})")
        half, axis = self.op(f"Div ({length}, {self.ints(2)})"), self.ints(1)
        first = self.op(f"Slice ({source}, {self.ints(0)}, {half}, {axis})")
        return [first, self.op(f"Slice ({source}, {half}, {length}, {axis})")]

    def attention(self, source: str, size: int) -> str:
        """Two heads over the pixels; bounded queries and keys keep the softmax from magnifying rounding."""
        query, key, value = (self.reshape(self.conv(source, size, size), 2, 2, size // 2, 25) for _ in range(3))
        rows, columns = self.transpose(self.op(f"Tanh ({query})"), 0, 1, 3, 2), self.op(f"Tanh ({key})")
        scores = self.op(f"Softmax ({self.op(f'MatMul ({rows}, {columns})')})")
        mixed = self.op(f"MatMul ({value}, {self.transpose(scores, 0, 1, 3, 2)})")
        return f"Reshape ({mixed}, {self.ints(2, size, 5, 5)})"

    def layernorm(self, source: str, size: int) -> str:
        scale, shift = self.weight(str(size)), self.weight(str(size))
        inner = self.op(f"LayerNormalization ({self.transpose(source, 0, 2, 3, 1)}, {scale}, {shift})")
        return f"Transpose <perm = [0,3,1,2]> ({inner})"

    def groupnorm(self, source: str, size: int) -> str:
        flat = self.reshape(source, 0, 2, -1)
        inner = self.op(f"InstanceNormalization ({flat}, {self.weight('2')}, {self.weight('2')})")
        return f"Reshape ({inner}, {self.ints(2, size, 5, 5)})"

    def shuffle(self, source: str, size: int) -> str:
        apart = self.transpose(self.reshape(source, 2, 2, size // 2, 5, 5), 0, 2, 1, 3, 4)
        return f"Reshape ({apart}, {self.ints(2, -1, 5, 5)})"

    def elementwise(self, layer: str, source: str, size: int) -> str:
        if layer in {"attention", "layernorm", "groupnorm", "shuffle"}:
            made: str = getattr(self, layer)(source, size)
            return made
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
        return f"MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> ({source})"

    def activation(self, source: str) -> str:
        return f"{self.random.choice(['Relu', 'Sigmoid', 'HardSwish', 'Tanh'])} ({source})"

    def text(self) -> str:
        size = sum(s for _, s in self.tensors)
        joined = self.op(f"Concat <axis = 1> ({', '.join(t for t, _ in self.tensors)})")
        flat = self.op(f"Flatten ({joined})")
        kernel = self.weight(f"{size * 25},3")
        body = "\n".join([*self.lines, f"y = MatMul ({flat}, {kernel})"])
        return f"(float[2,4,5,5] x) => (float[2,3] y) <{', '.join(self.weights)}> {{ {body} }}"


@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(LAYERS), min_size=1, max_size=12), st.integers(0, 1000), st.booleans(), st.booleans())
def test_cut_equals_mask(layers: list[str], seed: int, width: bool, blocks: bool) -> None:
    builder = Builder(seed)
    for layer in layers:
        builder.add(layer)
    graph = parse_graph(builder.text(), seed=seed)
    a, b = (outputs_of(graph, random_feeds(graph, s))["y"] for s in (1, 2))
    assert np.abs(a - b).max() > 1e-3 * np.abs(a).max()
    found = ChannelGroups.of(graph, policy=Policy(normalized_width=width, whole_blocks=blocks))
    choice = {
        group.name: sorted(
            builder.random.permutation(group.size)[: builder.random.integers(1, group.size + 1)].tolist()
        )
        for group in found.free
    }
    # a normalisation of one channel divides rounding by the root of epsilon
    assert_cut_equals_mask(graph, found, choice, 1e-3 if width else 1e-5)
    assert_close(outputs_of(permuted(graph, found, seed), random_feeds(graph)), outputs_of(graph, random_feeds(graph)))

"""Centering: what a Clip lets through, 0 .. r, becomes -r/2 .. r/2, and what reads it adds the middle again.

With c = r / 2, of a Conv, a Clip and a Conv without padding:

    W2 clip(W1 x + b1, 0, h) + b2 = W2 clip(W1 x + b1 - c, -c, h - c) + b2 + c (W2 1)

A format whose zero point is in its middle has no use for half of its codes on 0 .. r, and for all on -r/2 .. r/2: one
bit more. Padding would put zeros where c is meant. The shift into the bias is the "absorption" of Nagel et al.,
arXiv 1906.04721, 4.1.3, who move what a Relu always lets through; with the bounds moved too, any shift is exact.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnxopt.analysis.compensation.reading import give_bias
from onnxopt.analysis.recovery.equalization import clips_from_zero, is_fit
from onnxopt.graph import Graph, Node
from onnxopt.placement.shifts import Shifts


@dataclass(frozen=True)
class Between:
    """A Clip from 0 on, the Conv that it follows, and those that read it."""

    writer: Node
    clip: Node
    readers: tuple[Node, ...]

    @property
    def output(self) -> str:
        """Name of the tensor that the Clip writes."""
        return str(self.clip.outputs[0].name)


def find_clips(graph: Graph) -> list[Between]:
    """Clips from 0 on that can be centered: a Conv writes for them alone, and only Conv without padding read them."""
    found = []
    for clip in graph.nodes_of("Clip"):
        writer = graph.producer(clip.inputs[0])
        readers = tuple(graph.consumers(clip.outputs[0]))
        if writer is None or not clips_from_zero(graph, clip) or graph.is_output(clip.outputs[0]):
            continue
        alone = len(graph.consumers(clip.inputs[0])) == 1 and not graph.is_output(clip.inputs[0])
        read = readers and all(_reads(graph, n, clip) for n in readers)
        if writer.op == "Conv" and is_fit(graph, writer) and alone and read:
            found.append(Between(writer, clip, readers))
    return found


def center(graph: Graph, places: list[Between], ranges: Mapping[str, float]) -> Shifts:
    """Center what Clips let through, in place.

    Args:
        graph: The model.
        places: As `find_clips` gives them.
        ranges: Up to where the output of each Clip has codes, by its name; Clips for which that is no finite number
            above 0 are left alone.

    Returns:
        What was added to the outputs of those that were centered.
    """
    added = {}
    for place in places:
        middle = np.float32(ranges[place.output] / 2)
        if not np.isfinite(middle) or middle <= 0:
            continue
        _add_to_bias(graph, place.writer, -middle)
        for index in (1, 2):
            bound = graph.own_constant(place.clip, index)
            bound.values = np.asarray(bound.values - middle)
        for reader in place.readers:
            weight = graph.constant(reader.inputs[1])
            assert weight is not None
            sums = weight.astype(np.float64).reshape(len(weight), -1).sum(axis=1)
            _add_to_bias(graph, reader, (middle * sums).astype(np.float32))
        added[place.output] = -float(middle)
    return Shifts(added)


def _reads(graph: Graph, node: Node, clip: Node) -> bool:
    """Whether a node is a Conv that reads a Clip as its data, and with no zeros around."""
    if node.op != "Conv" or not is_fit(graph, node) or node.inputs[0] is not clip.outputs[0]:
        return False
    automatic = str(node.attrs.get("auto_pad", "NOTSET")).startswith("SAME")
    return not automatic and not any(node.attrs.get("pads", ()))


def _add_to_bias(graph: Graph, node: Node, shift: np.ndarray | np.float32) -> None:
    give_bias(graph, node)
    bias = graph.own_constant(node, 2)
    bias.values = bias.values + shift

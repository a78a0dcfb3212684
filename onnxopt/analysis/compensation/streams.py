"""Streams: channels that only linear layers write and read, put into the basis in which they are cut best.

Where tensors x of a residual stream are made by convolutions and sums alone, and read by convolutions alone, any
invertible T may be put in between without loss: producers become T P, readers E T⁻¹. With Σ = Cov(x) and
M = Σ_k E_kᵀ E_k / (variance of what reader k gives), T = Uᵀ M^½ for the eigenvectors U of M^½ Σ M^½: channel i then
carries the i-th largest part of what the readers see, uncorrelated with the others, and the last ones can go. Plain
removal of channels cannot do that, for every channel of a stream carries a bit of everything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxopt.analysis.channels import ChannelGroups, Group
from onnxopt.analysis.channels.atoms import IntArray
from onnxopt.analysis.channels.trace import Trace
from onnxopt.analysis.compensation.moments import Moments
from onnxopt.analysis.compensation.reading import FloatArray, Reader, read
from onnxopt.graph import Graph

EVEN = 0.1  # of the metric that is the same for all directions, so that M can be inverted
MAKERS = frozenset({"Conv", "Gemm", "MatMul"})


@dataclass(frozen=True, eq=False)
class Stream:
    """A linear stream.

    Attributes:
        group: Its channels.
        producers: What makes them.
        readers: What reads them.
    """

    group: Group
    producers: tuple[Reader, ...]
    readers: tuple[Reader, ...]


def find_streams(
    graph: Graph, found: ChannelGroups, readers: Sequence[Reader], absorbed: Sequence[int]
) -> list[Stream]:
    """The groups that are linear streams.

    Args:
        graph: The graph that was analysed, or a copy.
        found: Its groups.
        readers: What reads free channels.
        absorbed: Positions of nodes that pass their input on.
    """
    by_position = {r.position: r for r in readers}
    roots = _roots_of(found.relations)
    return [s for g in found.free if (s := _stream(graph, roots, g, by_position, absorbed)) is not None]


def _roots_of(relations: Trace) -> dict[str, set[int]]:
    """Tensor name to the roots on all its axes."""
    return {
        name: {int(r) for atoms in layout.values() for r in np.unique(relations.atoms.roots(atoms))}
        for name, layout in relations.layouts.items()
    }


def _stream(
    graph: Graph, roots: Mapping[str, set[int]], group: Group, readers: Mapping[int, Reader], absorbed: Sequence[int]
) -> Stream | None:
    mine = set(group.roots.tolist())
    producers, reading = [], []
    for position, node in enumerate(graph.nodes):
        made, taken = ([not mine.isdisjoint(roots.get(t.name, ())) for t in ts] for ts in (node.outputs, node.inputs))
        if not any(made) and not any(taken):
            continue
        if any(made) and any(taken) and (node.op in {"Add", "Identity"} or position in absorbed):
            if not all(taken[: 2 if node.op == "Add" else 1]):
                return None
        elif any(made) and not any(taken) and (producer := _producer(graph, position)) is not None:
            producers.append(producer)
        elif any(taken) and position in readers and taken[0] and readers[position].patches.group == 1:
            reading.append(readers[position])
        else:
            return None
    if not producers or not reading or any(not _in_order(r, group) for r in reading):
        return None
    return Stream(group, tuple(producers), tuple(reading))


def _in_order(reader: Reader, group: Group) -> bool:
    """Whether the channels that a node reads are the group's, all of them and in its order."""
    return np.array_equal(reader.roots[0], np.repeat(group.roots, _kernel(reader)))


def _producer(graph: Graph, position: int) -> Reader | None:
    """A node that makes channels, as a matrix of one row per channel."""
    node = graph.nodes[position]
    if node.op not in MAKERS or (node.op == "MatMul" and graph.constant(node.inputs[1]) is None):
        return None
    weight = graph.constant(node.inputs[1])
    if weight is None:
        return None
    inner = weight.shape[1] if node.op == "Conv" else weight.shape[1 if node.attrs.get("transB") else 0]
    found = read(graph, position, np.zeros(inner * int(node.attrs.get("group", 1)), np.int64))
    return found if found is not None and found.patches.group == 1 else None


def turn(graph: Graph, stream: Stream, moments: Mapping[int, Moments]) -> None:
    """Put a stream into its best basis, in place; the graph computes what it did before.

    Args:
        graph: The graph; weights of the stream's producers and readers change.
        stream: The stream.
        moments: Of the patches of its readers, by position.
    """
    size = stream.group.size
    metric, spread = np.zeros((size, size)), np.zeros((size, size))
    for reader in stream.readers:
        seen = _by_channel(reader, moments[reader.position].covariance[0])
        weight = _taps(reader, reader.matrix(graph)[0])
        given = np.einsum("tcj,tck->jk", weight, weight)
        metric += given / max(float(np.einsum("jk,jk->", given, seen)), 1e-30)
        spread += seen / max(float(np.trace(seen)), 1e-30)
    metric /= np.trace(metric)
    metric += EVEN / size * np.eye(size)
    root, inverse = _roots(metric)
    _, vectors = np.linalg.eigh(root @ spread @ root)
    vectors = vectors[:, ::-1]
    into, back = vectors.T @ root, inverse @ vectors
    for producer in stream.producers:
        bias = producer.bias(graph)
        matrix = into @ producer.matrix(graph)[0]
        producer.write(graph, matrix[None], None if bias is None else (into @ bias[0])[None])
    for reader in stream.readers:
        taps = np.einsum("tcj,jk->tck", _taps(reader, reader.matrix(graph)[0]), back)
        reader.write(graph, taps.transpose(1, 2, 0).reshape(1, taps.shape[1], -1), reader.bias(graph))


def _roots(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Symmetric square root of a positive definite matrix, and the root's inverse."""
    values, vectors = np.linalg.eigh(matrix)
    values = np.sqrt(np.maximum(values, 1e-12 * values.max()))
    return (vectors * values) @ vectors.T, (vectors / values) @ vectors.T


def _taps(reader: Reader, weight: FloatArray) -> FloatArray:
    """Weights [columns, length] of a Conv as [taps, columns, channels]."""
    channels = reader.patches.shape[2] // _kernel(reader)
    return weight.reshape(weight.shape[0], channels, -1).transpose(2, 0, 1)


def _kernel(reader: Reader) -> int:
    return int(np.prod(reader.patches.kernel)) if reader.patches.kernel else 1


def _by_channel(reader: Reader, covariance: FloatArray) -> FloatArray:
    """Covariance of channels: that of patches, averaged over the taps of the kernel."""
    taps = _kernel(reader)
    channels = len(covariance) // taps
    blocks = covariance.reshape(channels, taps, channels, taps)
    found: FloatArray = np.einsum("itjt->ij", blocks) / taps
    return found


def order_by_rank(stream: Stream) -> IntArray:
    """Channels of a turned stream in the order in which they should go: the last first."""
    return np.arange(stream.group.size)[::-1].copy()

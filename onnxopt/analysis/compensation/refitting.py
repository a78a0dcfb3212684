"""One walk over a model that has lost channels, refitting each layer that has lost inputs.

Sequential: a layer is fitted on what it reads in the model as refitted so far, to what it gave in the model before.
Where its output is added to another branch that is known by then, it is fitted to the sum before, so that errors
which the other branch carries are made up for too. A channel that is gone has zeros in the weights of all that read
it; the graph itself is cut in the end.
"""

from collections.abc import Sequence

from onnxopt.analysis.channels.atoms import Kept
from onnxopt.analysis.compensation.fitting import refit
from onnxopt.analysis.compensation.moments import Sums
from onnxopt.analysis.compensation.reading import Reader
from onnxopt.analysis.compensation.walking import LookingWalk
from onnxopt.data import Feeds
from onnxopt.graph import Array, Graph, Tensor

ROWS = 65536  # per layer, from all samples together
ROWS_PER_COLUMN = 4
ROW_WORK = 2e10  # multiply-accumulates of one covariance; layers with long patches take fewer rows


def refit_readers(
    graph: Graph, before: Graph, readers: Sequence[Reader], kept: Kept, samples: Sequence[Feeds], *, threads: int = 1
) -> int:
    """Refit, in place, every reader from the first that has lost channels on: the others make up for errors before.

    Args:
        graph: A copy of `before`; what is written are weights and biases, zeros for channels that are gone.
        before: The model that it was.
        readers: In order of execution.
        kept: What is left.
        samples: Inputs.
        threads: Threads of the sessions.

    Returns:
        How many were refitted.
    """
    first = next((i for i, r in enumerate(readers) if not kept.all(r.roots)), len(readers))
    hurt = readers[first:]
    old, new = (LookingWalk(g, samples, (), optimized=True, threads=threads) for g in (before, graph))
    for reader in hurt:
        _refit(reader, graph, kept, (old, new), len(samples))
        for walk in (old, new):
            walk.past(reader.output(graph))
    return len(hurt)


def _refit(reader: Reader, graph: Graph, kept: Kept, walks: tuple[LookingWalk, LookingWalk], samples: int) -> None:
    old, new = walks
    output, source = reader.output(graph), reader.input(graph)
    others = companions(graph, reader)
    sums = Sums(reader.patches.shape, with_outputs=True)
    most = rows_per_sample(reader, samples)
    for given, found in zip(old.look(output, *others), new.look(source, *others), strict=True):
        wanted = _wanted(given, found, output, others)
        sums.add(*reader.rows(found[source], wanted, most))
    bias = reader.bias(graph)
    moments = sums.result(centred=bias is not None)
    matrix, shift = refit(moments, reader.matrix(graph), bias, kept.where(reader.roots))
    reader.write(graph, matrix, shift)


def _wanted(given: dict[str, Array], found: dict[str, Array], output: str, others: Sequence[str]) -> Array:
    wanted = given[output]
    for name in others:
        if given[name].shape == wanted.shape:
            wanted = wanted + (given[name] - found[name])
    return wanted


def rows_per_sample(reader: Reader, samples: int) -> int:
    """How many rows of each sample are enough."""
    length = reader.patches.shape[2]
    rows = max(ROWS_PER_COLUMN * length, min(ROWS, int(ROW_WORK / length**2)))
    return -(-rows // max(1, samples))


def companions(graph: Graph, reader: Reader) -> list[str]:
    """Tensors that are added to a reader's output and are known before it runs."""
    position = {id(n): i for i, n in enumerate(graph.nodes)}
    tensor: Tensor = reader.node(graph).outputs[0]
    found: list[str] = []
    while len(tensor.outputs) == 1 and not graph.is_output(tensor):
        node = tensor.outputs[0]
        if node.op == "Add":
            other = next((t for t in node.inputs if t is not tensor), None)
            if other is None or graph.constant(other) is not None:
                break
            maker = graph.producer(other)
            if maker is not None and position.get(id(maker), reader.position) >= reader.position:
                break
            found.append(str(other.name))
        elif node.op not in {"Identity", "BatchNormalization"}:
            break
        tensor = node.outputs[0]
    return found

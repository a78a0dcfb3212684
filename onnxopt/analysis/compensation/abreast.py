"""A model and its changed copy walked side by side: what a layer of the copy reads, and what it should give.

What the layer gave in the model is wanted of it in the copy. Where its output is added to another branch that is known
by then, the error which that branch carries is to be made up for, too.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from onnxopt.analysis.compensation.affordable import plan
from onnxopt.analysis.compensation.moments import Moments, Sums
from onnxopt.analysis.compensation.reading import FloatArray, Reader
from onnxopt.analysis.compensation.views import views
from onnxopt.analysis.compensation.walking import LookingWalk
from onnxopt.analysis.cost import Cost
from onnxopt.analysis.shapes import RunShapes
from onnxopt.data import Feeds
from onnxopt.graph import Array, Graph, Tensor
from onnxopt.pass_api import Context
from onnxopt.runtime import host

ROUNDING = 1e-6  # of second moments, which are added up as float32: less is noise, and not even positive
NUMBERS = 2**24  # in the rows of one layer, from all samples together
ROWS = 65536  # per layer, from all samples together
ROWS_PER_COLUMN = 4
ROW_WORK = 2e10  # multiply-accumulates of one covariance; layers with long patches take fewer rows

Rows = tuple[Array, Array]
Numbers = tuple[FloatArray, FloatArray | None]
"""Weights [groups, columns, length], and a bias [groups, columns] where there is one."""


def choose_samples(
    graph: Graph, context: Context, readers: Sequence[Reader], trials: int
) -> tuple[list[Feeds], list[Feeds]]:
    """Samples to fit on and to judge on, as many as memory and time allow.

    Args:
        graph: The model.
        context: Has samples of both kinds.
        readers: Where walks over it stop.
        trials: How many runs over the judged samples there will be.
    """
    fit, holdout = context.fit, context.holdout
    assert fit is not None
    assert holdout is not None
    nbytes, macs = context.get(RunShapes).nbytes, context.get(Cost).total_macs
    numbers = plan(graph, readers, nbytes, macs, (len(fit), len(holdout)), trials)
    pictures = enumerate(fit.take(numbers.pictures))
    fitted = [view for i, sample in pictures for view in views(sample.feeds, numbers.views, i)]
    return fitted, [sample.feeds for sample in holdout.take(numbers.judged)]


class Abreast:
    """Two walks.

    Args:
        before: The model.
        after: The copy. Values of its constants may change ahead of the walk, its structure may not.
        samples: What is fed to both.
    """

    def __init__(self, before: Graph, after: Graph, samples: Sequence[Feeds]) -> None:
        self._after, self._count = after, len(samples)
        self._known = {t.name for n in before.nodes for t in n.outputs} | {t.name for t in before.inputs}
        self._walks = [LookingWalk(g, samples, (), optimized=True, threads=host.cores()) for g in (before, after)]

    def rows(self, reader: Reader) -> Iterator[Rows]:
        """Yield what a layer reads and what it should give, one sample after the other.

        Layers are asked for in order of execution, each as often as needed.
        """
        old, new = self._walks
        output, source = reader.output(self._after), reader.input(self._after)
        others = [name for name in companions(self._after, reader) if name in self._known]
        most = self._most(reader)
        # The copy stops before the layer, whose weights are about to change.
        for given, found in zip(old.reach(output, *others), new.reach(source, *others), strict=True):
            yield reader.rows(found[source], _wanted(given, found, output, others), most)

    def _most(self, reader: Reader) -> int:
        """Rows per sample: enough for a layer's unknowns, and no more numbers than are quickly added up."""
        groups, _, length = reader.patches.shape
        enough = max(ROWS_PER_COLUMN * length, NUMBERS // (groups * length))
        return min(rows_per_sample(reader, self._count), -(-enough // max(1, self._count)))

    def moments(self, reader: Reader, *, centred: bool) -> Moments:
        """Moments of these rows; about their means where the layer has a bias."""
        sums = Sums(reader.patches.shape, with_outputs=True)
        for inputs, wanted in self.rows(reader):
            sums.add(inputs, wanted)
        found = sums.result(centred=centred)
        size = np.einsum("gii->gi", found.covariance) + np.square(found.mean)
        noise = ROUNDING * size.max(axis=1) + ROUNDING**2 * size.max() + np.finfo(np.float32).tiny
        covariance = found.covariance + noise[:, None, None] * np.eye(size.shape[1])
        return replace(found, covariance=covariance)


def _wanted(given: dict[str, Array], found: dict[str, Array], output: str, others: Sequence[str]) -> Array:
    wanted = given[output]
    for name in others:
        if given[name].shape == wanted.shape:
            wanted = wanted + (given[name] - found[name])
    return wanted


def errors_of(rows: Iterable[Rows], choices: Sequence[Numbers]) -> list[float]:
    """Squared error of each choice of weights and bias as a share of the variance of what is wanted."""
    squares, count = 0.0, 0
    total: FloatArray | float = 0.0
    lost = [0.0] * len(choices)
    for inputs, wanted in rows:
        values = np.asarray(wanted, np.float64)
        total = total + values.sum(axis=1)
        squares += float(np.square(values).sum())
        count += values.shape[1]
        for index, (weight, bias) in enumerate(choices):
            given = np.matmul(inputs, weight.astype(np.float32).transpose(0, 2, 1)).astype(np.float64)
            lost[index] += float(np.square(values - given - (0.0 if bias is None else bias[:, None, :])).sum())
    variance = squares - float(np.square(total).sum()) / max(1, count)
    return [each / variance if variance > 0 else float(each > 0) for each in lost]


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

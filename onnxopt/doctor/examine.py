"""One examination: look at all samples, run the model on some of them, and ask every check."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from onnxopt.calibration.collect import expose
from onnxopt.data import Dataset, InputSpec, Preprocess
from onnxopt.data.images import image_layout
from onnxopt.doctor.batch_norm import TrainingStatistics
from onnxopt.doctor.checks import Findings, run_checks
from onnxopt.doctor.draw import draw
from onnxopt.doctor.expected import expected
from onnxopt.doctor.finding import Diagnosis
from onnxopt.doctor.inputs import Size, twins_of
from onnxopt.doctor.reading import Interpreter
from onnxopt.doctor.search import Preparation, search
from onnxopt.doctor.settings import Name
from onnxopt.doctor.sweep import Sweep, is_picture, sweep
from onnxopt.doctor.trials import Trials
from onnxopt.doctor.views import EVERY_SETTING, view_of
from onnxopt.errors import OptimizationError
from onnxopt.evaluation.inputs import image_size
from onnxopt.evaluation.measure import runnable
from onnxopt.graph import Graph
from onnxopt.runtime.adapter import Runtime
from onnxopt.runtime.ort import OrtSession

SHOWN = 4  # pictures that are drawn


@dataclass(frozen=True)
class Depth:
    """How much is done.

    Attributes:
        swept: Samples that are looked at, at most.
        samples: Samples that the model is run on, at most.
        fewest: With fewer nothing could be told from noise, and the model is not run.
        work: Multiply-accumulates that may be spent on all preparations; samples are fewer for large models.
        stretch: Whether `fewest` samples are run even if that is more work.
        runs: Of a sample, in all preparations together, about.
        settings: What is tried otherwise; the rest is only compared with what the family expects.
    """

    swept: int
    samples: int
    fewest: int
    work: float
    stretch: bool
    runs: int
    settings: frozenset[Name] = EVERY_SETTING

    def count(self, macs: int) -> int:
        """Return the number of samples that the model is run on, 0 where it is too large."""
        affordable = int(self.work / (max(macs, 1) * self.runs))
        if affordable < self.fewest:
            return self.fewest if self.stretch else 0
        return min(self.samples, affordable)


THOROUGH = Depth(swept=256, samples=64, fewest=16, work=2e12, stretch=True, runs=10)
SHORT = Depth(64, 12, 10, 4.5e11, stretch=False, runs=10, settings=frozenset({"values", "color"}))


def examine(
    graph: Graph,
    inputs: Sequence[InputSpec],
    dataset: Dataset,
    *,
    macs: int,
    depth: Depth = THOROUGH,
    runtime: Runtime | None = None,
    assumed: bool = False,
    pictures: Path | None = None,
) -> Diagnosis:
    """Find out what is wrong with data, their preparation and their labels.

    Args:
        graph: The float model.
        inputs: Its inputs with numbers for all dimensions.
        dataset: The samples as they would be fed to it.
        macs: Of one run of the model.
        depth: How much may be done.
        runtime: What runs the model; default ONNX Runtime.
        assumed: Nobody said how the pictures become inputs; what `dataset` has was made up.
        pictures: Folder to which some inputs are drawn as the model sees them.

    Raises:
        UsageError: `pictures` cannot be written.
    """
    dataset = dataset.take(depth.swept)
    swept = sweep(dataset, inputs)
    notes: list[str] = []
    trials = _trials(graph, inputs, dataset, swept, depth.count(macs), runtime, notes)
    preparation = _prepare(graph, inputs, trials, depth, notes) if trials is not None else None
    if preparation is None:
        trials = None
    found = run_checks(Findings(swept, _size(graph.metadata, inputs), trials, preparation, assumed))
    ran = len(trials.seen(trials.view.given)) if trials is not None else 0
    drawn = []
    if pictures is not None and trials is not None and preparation is not None:
        drawn = _draw(trials, preparation, pictures, preparation.best if assumed else preparation.given)
    return Diagnosis(
        findings=found,
        description=dataset.description,
        preprocess=str(dataset.preprocess) if dataset.preprocess is not None and not assumed else None,
        examined=len(swept.glances),
        run=ran,
        notes=notes,
        pictures=[str(file) for file in drawn],
    )


def _trials(
    graph: Graph,
    inputs: Sequence[InputSpec],
    dataset: Dataset,
    swept: Sweep,
    count: int,
    runtime: Runtime | None,
    notes: list[str],
) -> Trials | None:
    """The model, ready to be run on the samples; None where that is not possible, which is noted."""
    if swept.broken is not None or not swept.glances:
        return None
    view = view_of(_distinct(dataset, swept).take(max(count, 1)), inputs, swept.arrays)
    if view is None:
        notes.append("the model takes no float picture, so its own view of the samples was not asked for")
        return None
    if not runnable(graph) or not count:
        notes.append("the model is too large to be run here, so only the samples were looked at")
        return None
    statistics = TrainingStatistics.find(graph)
    try:
        proto = (expose(graph, [statistics.tensor]) if statistics is not None else graph).to_proto()
        session = runtime.open(proto) if runtime is not None else OrtSession(proto)
    except OptimizationError as error:
        notes.append(f"the model was not run: {error}")
        return None
    return Trials(session, Interpreter(graph.metadata), inputs, view, statistics)


def _distinct(dataset: Dataset, swept: Sweep) -> Dataset:
    """The samples that were looked at, without those that look like one before them: they are no further evidence."""
    positions = range(len(dataset.source)) if dataset.indices is None else dataset.indices
    usable = [index for index in positions if index not in dataset.source.skipped]
    if len(usable) != len(swept.glances):  # more turned out to be unreadable, or fewer could be read
        return dataset
    twins = {second for _, second in twins_of(swept.glances)}
    return replace(dataset, indices=[index for place, index in enumerate(usable) if place not in twins])


def _prepare(
    graph: Graph, inputs: Sequence[InputSpec], trials: Trials, depth: Depth, notes: list[str]
) -> Preparation | None:
    """How the samples should be prepared; None where the model fails on them, which is noted."""
    try:
        trials.seen(trials.view.given)
        family = expected(graph.metadata, inputs, is_yolox=trials.is_yolox)
        if not trials.useful:
            notes.append("what the model says is not understood, so ranges, colours and sizes were not checked")
        return search(trials, family, depth.settings)
    except OptimizationError as error:
        notes.append(f"the model was not run: {error}")
        return None


def _size(metadata: Mapping[str, str], inputs: Sequence[InputSpec]) -> Size | None:
    trained = image_size(metadata)
    if trained is None or len(inputs) != 1 or not is_picture(inputs[0]):
        return None
    _, _, height, width = image_layout(inputs[0])
    return Size(inputs[0], (height, width), trained)


def _draw(trials: Trials, preparation: Preparation, folder: Path, prepared: Preprocess) -> list[Path]:
    view = trials.view
    seen = trials.seen(prepared)
    step = max(1, len(seen) // SHOWN)
    samples = islice(zip(view.samples(prepared), seen, strict=True), 0, None, step)
    chosen = [(sample.feeds[view.spec.name], one) for sample, one in islice(samples, SHOWN)]
    wanted = preparation.best
    names = trials.reader.names or trials.category_names
    return draw(folder, chosen, view.spec, wanted, names)

"""Scores of a model on labelled samples: `top1`, `coco-map`, or what the user wrote.

A user's metric is a function `(outputs, sample) -> float`, averaged over the samples, or an object with
`update(outputs, sample)` and `compute() -> float` for scores of the whole set; a class, or a function without
arguments, that makes such an object will do. `outputs` maps each output's name to its array. Higher is better unless
the metric has an attribute `lower_is_better` that is true.
"""

import copy
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from typing import Any, Protocol

import numpy as np

from onnxopt.data import Array, Boxes, Categories, Feeds, Sample, is_symbol, load_symbol
from onnxopt.errors import OnnxoptError, OptimizationError, UsageError, nearest
from onnxopt.evaluation.detection import class_names, detect, find_layout

# The identifiers that COCO gives its 80 classes; ten between 1 and 90 were never used.
COCO_IDS = tuple(sorted(set(range(1, 91)) - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}))


class Accumulator(Protocol):
    """Gathers samples and gives their score."""

    def update(self, outputs: Feeds, sample: Sample) -> None:
        """Add what the model gave for one sample."""

    def compute(self) -> float:
        """Return the score of all samples so far."""


@dataclass(frozen=True)
class Metric:
    """A way to score a model; scoring twice starts twice.

    Attributes:
        name: What it is called in the report.
        start: Returns an empty accumulator.
        lower_is_better: Whether smaller values are better.
        point: What one point is: 0.01 of a score of 0..1 that is quoted in percent, 1 of any other.
    """

    name: str
    start: Callable[[], Accumulator]
    lower_is_better: bool = False
    point: float = 1.0


@dataclass(frozen=True)
class Score:
    """A model's score.

    Attributes:
        value: The score of the set.
        count: Number of samples.
        per_sample: Each sample's value, for metrics that are an average; None for others.
        gathered: What the score was computed from.
    """

    value: float
    count: int
    per_sample: list[float] | None = None
    gathered: Accumulator | None = None


@dataclass
class Average:
    """The mean of a function of each sample."""

    function: Callable[[Feeds, Sample], float]
    values: list[float] = field(default_factory=list)

    def update(self, outputs: Feeds, sample: Sample) -> None:
        """Add one sample's value.

        Raises:
            ValueError: It is not a finite number.
        """
        value = float(self.function(outputs, sample))
        if not math.isfinite(value):
            raise ValueError(f"the metric is {value}")
        self.values.append(value)

    def compute(self) -> float:
        """Return the mean."""
        return math.fsum(self.values) / len(self.values)


def class_scores(outputs: Feeds) -> Array | None:
    """Return the scores float[N, C] of a classifier's outputs (also [N, C, 1, 1]), or None if there are none."""
    for array in outputs.values():
        is_vector = array.ndim >= 2 and math.prod(array.shape[2:]) == 1
        if is_vector and array.dtype.kind == "f" and array.shape[1] >= 2:
            return array.reshape(array.shape[:2])
    return None


def top1(outputs: Feeds, sample: Sample) -> float:
    """Return 1 if the highest score is that of the labelled class, else 0.

    Raises:
        UsageError: The sample has no class number, or the model is no classifier with that class.
    """
    scores = class_scores(outputs)
    if scores is None:
        shapes = {name: list(array.shape) for name, array in outputs.items()}
        raise UsageError(f"metric top1 needs an output of shape [N, classes]; the model has {shapes}")
    if not isinstance(sample.label, int | np.integer):
        raise UsageError("metric top1 needs a class number with each sample, as a csv of file,label gives")
    if sample.label >= scores.shape[1]:
        raise UsageError(f"a sample is labelled {sample.label}, but the model has {scores.shape[1]} classes")
    return float(scores[0].argmax() == sample.label)


@dataclass
class MeanAveragePrecision:
    """COCO's mean average precision over the IoU thresholds 0.50, 0.55 … 0.95, by pycocotools.

    Definition: https://cocodataset.org/#detection-eval; values are 0..1.

    Raises:
        UsageError: pycocotools is not installed.
    """

    metadata: Mapping[str, str]
    pictures: list[Boxes] = field(default_factory=list)
    found: list[Array] = field(default_factory=list)

    def __post_init__(self) -> None:
        _pycocotools()

    def update(self, outputs: Feeds, sample: Sample) -> None:
        """Add one picture's boxes, real and found.

        Raises:
            UsageError: The sample is not labelled with boxes, or the model is no known detector.
        """
        truth, image = sample.label, sample.image
        if not isinstance(truth, Boxes) or image is None:
            raise UsageError("metric coco-map needs boxes, as a COCO json or an Ultralytics data.yaml gives")
        layout = find_layout(outputs, sample.feeds, self.metadata)
        if layout is None:
            shapes = {name: list(array.shape) for name, array in outputs.items()}
            raise UsageError(f"metric coco-map cannot read boxes from {shapes}; give --metric module:function")
        found = detect(outputs, layout)
        ids = category_ids(truth.categories, layout.class_count, class_names(self.metadata))
        known = [ids.get(number, -1) for number in found.classes.tolist()]
        xyxy = image.to_original(found.xyxy)
        rows = np.column_stack(
            [np.full(len(found), truth.image_id), xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2], found.scores, known]
        )
        self.pictures.append(truth)
        self.found.append(rows[rows[:, 6] >= 0])

    def compute(self) -> float:
        """Return the mean average precision of all pictures so far.

        Raises:
            UsageError: There are no real boxes.
        """
        if not sum(len(truth) for truth in self.pictures):
            raise UsageError("metric coco-map: none of the pictures has a labelled box")
        evaluation = self.matched()
        if evaluation is None:
            return 0.0
        with redirect_stdout(StringIO()):
            evaluation.accumulate()
            evaluation.summarize()
        return float(evaluation.stats[0])

    def matched(self) -> Any | None:
        """Return pycocotools' `COCOeval` with the matches of each picture; None where no box was found."""
        found = np.concatenate(self.found)
        if not len(found):
            return None
        coco_class, evaluation_class = _pycocotools()
        with redirect_stdout(StringIO()):
            coco = coco_class()
            coco.dataset = _as_coco(self.pictures)
            coco.createIndex()
            evaluation = evaluation_class(coco, coco.loadRes(found), "bbox")
            evaluation.evaluate()
        return evaluation


def category_ids(categories: Categories, class_count: int | None, names: Mapping[int, str] | None) -> dict[int, int]:
    """Return the label identifier of each model class.

    1. By name, where the model's metadata names all of the set's categories.
    2. In order, where model and set have equally many; or where the output does not tell how many there are.
    3. By COCO's own numbering, for 80 classes against a set that has some of COCO's categories.

    Raises:
        UsageError: None of these applies.
    """
    ids = dict(zip(categories.names, categories.ids, strict=True))
    if names and set(ids) <= set(names.values()) and len(ids) == len(categories.ids):
        return {number: ids[name] for number, name in names.items() if name in ids}
    count = class_count or (len(names) if names else len(categories.ids))
    if count == len(categories.ids):
        return dict(enumerate(categories.ids))
    if count == len(COCO_IDS) and set(categories.ids) <= set(COCO_IDS):
        return dict(enumerate(COCO_IDS))
    raise UsageError(
        f"the model has {count} classes and the labels have {len(categories.ids)} categories, and their names "
        "do not say which is which"
    )


def _pycocotools() -> tuple[Any, Any]:
    """Return pycocotools' COCO and COCOeval, which are optional."""
    try:
        from pycocotools.coco import COCO  # noqa: PLC0415 - optional
        from pycocotools.cocoeval import COCOeval  # noqa: PLC0415 - optional
    except ImportError:
        raise UsageError("metric coco-map needs pycocotools; pip install 'onnxopt[eval]'") from None
    return COCO, COCOeval


def _as_coco(pictures: Iterable[Boxes]) -> dict[str, list[dict[str, Any]]]:
    """Return labelled pictures in COCO's own format."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories: dict[int, str] = {}
    for truth in pictures:
        images.append({"id": truth.image_id})
        categories.update(zip(truth.categories.ids, truth.categories.names, strict=True))
        for index in range(len(truth)):
            x1, y1, x2, y2 = truth.xyxy[index].tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": truth.image_id,
                    "category_id": truth.categories.ids[truth.classes[index]],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(truth.area[index]),
                    "iscrowd": int(truth.crowd[index]),
                }
            )
    named = [{"id": number, "name": name} for number, name in categories.items()]
    return {"images": images, "annotations": annotations, "categories": named}


PERCENT = 0.01
BUILT_IN = ("top1", "coco-map")


def load_metric(spec: Any, *, metadata: Mapping[str, str] | None = None) -> Metric:
    """Return the metric that a name, `module:function`, function, class or object stands for.

    Args:
        spec: One of these, or a `Metric`.
        metadata: The model's `metadata_props`; class names and the kind of head are read from it.

    Raises:
        UsageError: The name is unknown, or the thing is no metric.
    """
    if isinstance(spec, Metric):
        return spec
    if spec == "top1":
        return Metric("top1", lambda: Average(top1), point=PERCENT)
    if spec == "coco-map":
        kept = dict(metadata or {})
        MeanAveragePrecision(kept)  # refuses here where pycocotools is missing
        return Metric("coco-map", lambda: MeanAveragePrecision(kept), point=PERCENT)
    if not isinstance(spec, str):
        return _own_metric(spec, getattr(spec, "__name__", type(spec).__name__))
    if not is_symbol(spec):
        raise UsageError(f"metric '{spec}' is not known{nearest(spec, BUILT_IN)} (or module:function)")
    return _own_metric(load_symbol(spec), spec)


def _own_metric(thing: Any, name: str) -> Metric:
    if inspect.isclass(thing) or (callable(thing) and not _accumulates(thing) and not _takes(thing, 2)):
        return Metric(name, thing, _lower_is_better(_made(thing, name)))
    if _accumulates(thing):
        return Metric(name, _restarts(thing, name), _lower_is_better(thing))
    if not callable(thing):
        raise UsageError(f"metric {name} is neither a function nor has it update and compute")
    return Metric(name, lambda: Average(thing), _lower_is_better(thing))


def _lower_is_better(thing: Any) -> bool:
    return bool(getattr(thing, "lower_is_better", False))


def _accumulates(thing: Any) -> bool:
    return callable(getattr(thing, "update", None)) and callable(getattr(thing, "compute", None))


def _made(factory: Callable[[], Any], name: str) -> Any:
    """Return what a class or function makes, refused unless it can be updated and computed."""
    if not _takes(factory, 0):
        raise UsageError(f"metric {name} should take two arguments, (outputs, sample), or none and make an object")
    try:
        made = factory()
    except OnnxoptError:
        raise
    except Exception as error:
        raise UsageError(f"metric {name} cannot be made: {error!r}") from error
    if not _accumulates(made):
        raise UsageError(f"metric {name} makes a {type(made).__name__} that lacks update or compute")
    return made


def _restarts(thing: Any, name: str) -> Callable[[], Accumulator]:
    """Return what gives the object in its present state again each time; samples must not pile up."""
    try:
        pristine = copy.deepcopy(thing)
    except Exception as error:
        raise UsageError(f"metric {name} cannot be copied ({error}); give the class instead") from error
    return lambda: copy.deepcopy(pristine)


def _takes(function: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # built-in without a signature: only calling it can tell
        return count == 2
    return True


def score(metric: Metric, run: Callable[[dict[str, Array]], Feeds], dataset: Iterable[Sample]) -> Score:
    """Return the score of a model on a data set.

    Args:
        metric: What to measure.
        run: Runs the model: feeds to outputs, both by name.
        dataset: Labelled samples.

    Raises:
        UsageError: There are no samples, or their labels are not what the metric needs.
        OptimizationError: An output or the metric is NaN, or the metric raised; the message names the sample.
    """
    gathered = metric.start()
    count = 0
    for sample in dataset:
        where = str(sample.image.path) if sample.image else f"sample {count}"
        outputs = run(sample.feeds)
        for name, array in outputs.items():
            if array.dtype.kind == "f" and np.isnan(array).any():
                raise OptimizationError(f"output '{name}' has NaN for {where}")
        try:
            gathered.update(outputs, sample)
        except OnnxoptError:
            raise
        except Exception as error:
            raise OptimizationError(f"metric {metric.name} failed for {where}: {error!r}") from error
        count += 1
    if not count:
        raise UsageError(f"there are no samples to measure {metric.name} on")
    return _finish(metric.name, gathered, count)


def _finish(name: str, gathered: Accumulator, count: int) -> Score:
    try:
        value = float(gathered.compute())
    except OnnxoptError:
        raise
    except Exception as error:
        raise OptimizationError(f"metric {name} failed over {count} samples: {error!r}") from error
    if not math.isfinite(value):
        raise OptimizationError(f"metric {name} is {value} over {count} samples")
    return Score(value, count, gathered.values if isinstance(gathered, Average) else None, gathered)

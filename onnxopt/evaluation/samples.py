"""The samples of one run: what is fitted on, what a choice is judged on, what is scored on.

Every third sample of the data is held out. What is scored on comes from the user, or is the validation split of a
source that has one, or else what is held out; so no choice is judged on what it was fitted on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxopt.data import (
    Dataset,
    InputSpec,
    Preprocess,
    Role,
    infer_preprocess,
    open_dataset,
    parse_preprocess,
    synthetic,
)
from onnxopt.evaluation.batches import fill_dataset
from onnxopt.evaluation.input_range import guess_range
from onnxopt.evaluation.measure import runnable
from onnxopt.graph import Graph

SYNTHETIC_SAMPLES = 24
DEFAULT_SAMPLES = 128
JUDGED_SAMPLES = 32  # held-out inputs on which SQNR and agreement are measured


@dataclass(frozen=True)
class Samples:
    """Samples by their use.

    Attributes:
        data: All of what passes may look at.
        fit: Two thirds of it, to choose and fit on.
        holdout: The other third, to judge on; the same as `fit` where there is one sample alone.
        evaluation: What is scored on.
        synthetic: Whether `data` is made up, so that accuracy cannot be judged.
        notes: What a reader of the report must know.
    """

    data: Dataset
    fit: Dataset
    holdout: Dataset
    evaluation: Dataset
    synthetic: bool
    notes: list[str] = field(default_factory=list)

    @property
    def can_judge(self) -> bool:
        """Whether some real samples are held out: on made-up ones, and on those fitted to, nothing looks wrong."""
        return not self.synthetic and self.holdout is not self.fit

    @property
    def preprocess(self) -> str | None:
        """How pictures of the user's became inputs, as a recipe has it."""
        return str(self.data.preprocess) if self.data.preprocess is not None and not self.synthetic else None

    def to_dict(self) -> dict[str, Any]:
        """As the report has it."""
        return {
            "source": self.data.description,
            "synthetic": self.synthetic,
            "digest": self.data.digest(),
            "fitted_on": len(self.fit),
            "judged_on": min(len(self.holdout), JUDGED_SAMPLES),
            "notes": self.data.notes,
        }


def open_samples(
    graph: Graph, inputs: Sequence[InputSpec], data: Any, eval_data: Any, preprocess: Any, limit: int | None
) -> Samples:
    """Open the data, or make some up; split what is fitted on from what is judged on.

    Args:
        graph: The model as it came; its metadata and first layer may say how pictures become inputs.
        inputs: Its inputs at the sizes it is run at.
        data: What the user gave to calibrate on, or None.
        eval_data: What the user gave to score on, or None.
        preprocess: As asked, or None.
        limit: Use at most so many samples of `data`.

    Raises:
        UsageError: The data cannot be used.
    """
    notes: list[str] = []

    def opened(source: Any, role: Role, count: int | None) -> Dataset:
        found = open_dataset(source, inputs, role=role, preprocess=preprocess, samples=count, metadata=graph.metadata)
        return fill_dataset(found, inputs)

    if data is None:
        made_up = synthetic(inputs, limit or SYNTHETIC_SAMPLES, preprocess=_made_up(graph, inputs, preprocess, notes))
        whole = fill_dataset(made_up, inputs)
    else:
        whole = opened(data, "calibration", limit or DEFAULT_SAMPLES)
    fit, holdout = whole.split_holdout(3)
    if not len(holdout):
        holdout = fit
        notes.append("a single sample: choices are judged on the sample that they were fitted on")
    evaluation = holdout
    if eval_data is not None:
        evaluation = opened(eval_data, "evaluation", None)
    elif isinstance(data, str | Path) and Path(data).suffix in {".yaml", ".yml"}:
        evaluation = opened(data, "evaluation", None)
    return Samples(whole, fit, holdout, evaluation, data is None, notes)


def _made_up(graph: Graph, inputs: Sequence[InputSpec], preprocess: Any, notes: list[str]) -> Preprocess | None:
    """In which range made-up pictures come: as asked, as the metadata says, or as the first layer suggests."""
    if isinstance(preprocess, Preprocess):
        return preprocess
    if preprocess is not None:
        return parse_preprocess(preprocess) if isinstance(preprocess, str) else Preprocess.from_dict(preprocess)
    found = infer_preprocess(graph.metadata, inputs)
    found = found or (guess_range(graph, inputs) if runnable(graph) else None)
    if found is None:
        return None
    notes.append(found[1])
    return found[0]

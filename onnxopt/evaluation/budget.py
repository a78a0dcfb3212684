"""An accuracy budget: how far the score may fall, and whether a model keeps to it.

A budget is written `1%` (of the float model's score) or `1.0` (points: 0.01 of top1, coco-map and agreement, which are
quoted in percent; 1 of a metric of the user's own). The point estimate decides; the interval says how sure it is.
"""

import math
import re
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from onnxopt.data import Dataset
from onnxopt.errors import UsageError
from onnxopt.evaluation.evidence import Ratio
from onnxopt.evaluation.interval import Interval, drop_interval
from onnxopt.evaluation.likeness import Likeness
from onnxopt.evaluation.metrics import PERCENT, Metric, score
from onnxopt.graph import Graph
from onnxopt.runtime.adapter import Runtime, Session
from onnxopt.runtime.ort import OrtSession

ROUNDING = 1e-9  # 0.955 - 0.945 is not above 0.01
ENOUGH_PICTURES = 20
_TEXT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\s*(%?)")


@dataclass(frozen=True)
class Budget:
    """How much may be lost.

    Attributes:
        amount: Percent of the float model's score, or points.
        relative: Which of the two.
    """

    amount: float
    relative: bool

    @classmethod
    def parse(cls, text: str | float) -> "Budget":
        """Read `1%` or `1.0`.

        Raises:
            UsageError: It is neither, or out of range.
        """
        match = _TEXT.fullmatch(str(text).strip())
        if match is None or isinstance(text, bool):
            raise UsageError(
                f"max drop '{text}' should be a share of the float score, such as 1%, or points, such as 1.0; "
                "neither is negative"
            )
        budget = cls(float(str(text).strip().rstrip("% ")), bool(match[2]))
        if not math.isfinite(budget.amount) or (budget.relative and budget.amount > 100):
            raise UsageError(f"max drop '{text}' is more than there is to lose; give a share of at most 100%")
        return budget

    def __str__(self) -> str:
        return f"{self.amount:g}%" if self.relative else repr(self.amount)

    def allowed(self, float_score: float, point: float) -> float:
        """Return the largest drop in the unit of the score.

        Raises:
            UsageError: A share is asked for of a score that is 0, or more points than the score has.
        """
        if not self.relative:
            if point == PERCENT and self.amount > 100:
                raise UsageError(f"max drop {self} is more than there is to lose; this score has 100 points")
            return self.amount * point
        if float_score == 0:
            raise UsageError(
                "the float model's score is 0, so a share of it is no budget; give --max-drop in points, see with "
                "`onnxopt doctor` whether the labels fit, or judge by agreement with it: --metric agreement"
            )
        return self.amount / 100 * abs(float_score)


@dataclass(frozen=True)
class Verdict:
    """Whether a model keeps to a budget.

    Attributes:
        metric: What was measured, in words.
        max_drop: The budget as it was given.
        before: Score of the float model.
        after: Score of the model that is judged.
        drop: How much is lost, in the unit of the score; negative where it got better.
        allowed: The largest drop that keeps to the budget.
        met: Whether this one does.
        pictures: How many pictures judge.
        interval: Where the drop probably lies; None for metrics that can only be computed over a whole set.
    """

    metric: str
    max_drop: str
    before: float
    after: float
    drop: float
    allowed: float
    met: bool
    pictures: int
    interval: Interval | None

    def __str__(self) -> str:
        return (
            f"{self.metric} goes from {self.before:.4f} to {self.after:.4f} on {self.pictures} pictures, a drop of "
            f"{self.drop:.4f} where max drop {self.max_drop} allows {self.allowed:.4f}"
        )

    def warnings(self) -> list[str]:
        """What a reader must know."""
        said = [] if self.met else [str(self)]
        if self.pictures < ENOUGH_PICTURES:
            few = "1 picture judges" if self.pictures == 1 else f"{self.pictures} pictures judge"
            said.append(f"only {few} the budget; see how wide its interval is")
        return said

    def to_dict(self) -> dict[str, Any]:
        """As the report has it."""
        return asdict(self)


@dataclass(frozen=True)
class _Standing:
    name: str
    value: float
    pictures: int
    gathered: Any


class Judge:
    """Scores models against the float model; an artefact for passes that have to keep to a budget.

    Args:
        budget: What may be lost.
        reference: The float model.
        samples: What is judged on.
        runtime: The target's; None where it is not here: then ONNX Runtime runs the graphs as they are written.
        metric: The score; None for agreement with the float model.

    Attributes:
        allowed: The largest drop that keeps to the budget, in the unit of the score.
        tolerated: The same with room for float rounding.

    Raises:
        UsageError: The samples do not suit the metric, or its score of the float model leaves nothing to lose.
    """

    def __init__(
        self,
        budget: Budget,
        reference: Graph,
        samples: Dataset,
        runtime: Runtime | None = None,
        metric: Metric | None = None,
    ) -> None:
        self.budget = budget
        self._reference, self._samples, self._runtime, self._metric = reference, samples, runtime, metric
        self._before: _Standing | None = self._standing(reference) if metric is not None else None
        self._point = metric.point if metric is not None else PERCENT
        self.allowed = budget.allowed(self._before.value if self._before else 1.0, self._point)
        self.tolerated = self.allowed + ROUNDING

    def drop(self, graph: Graph) -> float:
        """Return how much of the score a model loses, in the unit of the score."""
        return self._drop(self._standing(graph))

    def verdict(self, graph: Graph) -> Verdict:
        """Return the drop with its interval, and whether it keeps to the budget."""
        after = self._standing(graph)
        drop = self._drop(after)
        return Verdict(
            metric=after.name,
            max_drop=str(self.budget),
            before=self._before.value if self._before else 1.0,
            after=after.value,
            drop=drop,
            allowed=self.allowed,
            met=drop <= self.tolerated,
            pictures=after.pictures,
            interval=self._interval(after),
        )

    def _drop(self, after: _Standing) -> float:
        return self._sign * ((self._before.value if self._before else 1.0) - after.value)

    @property
    def _sign(self) -> float:
        return -1.0 if self._metric is not None and self._metric.lower_is_better else 1.0

    def _opened(self, graph: Graph) -> Session:
        model = graph.to_proto()
        return self._runtime.open(model) if self._runtime is not None else OrtSession(model, optimized=False)

    @cached_property
    def _float_session(self) -> Session:
        return self._opened(self._reference)

    def _standing(self, graph: Graph) -> _Standing:
        session = self._opened(graph)
        if self._metric is not None:
            result = score(self._metric, session.run, self._samples)
            return _Standing(self._metric.name, result.value, result.count, result)
        likeness = Likeness(self._reference.metadata)
        for sample in self._samples:
            likeness.update(self._float_session.run(sample.feeds), session.run(sample.feeds), sample)
        evidence = likeness.evidence()
        value = float(evidence.values(np.ones((1, evidence.pictures), np.int64))[0])
        return _Standing(likeness.name, value, evidence.pictures, evidence)

    def _interval(self, after: _Standing) -> Interval | None:
        if self._before is None:
            same = Ratio.mean([1.0] * after.pictures)
            return drop_interval(same, after.gathered)
        evidence = [s.gathered.evidence() for s in (self._before, after)]
        if evidence[0] is None or evidence[1] is None:
            return None
        return drop_interval(evidence[0], evidence[1], sign=self._sign)

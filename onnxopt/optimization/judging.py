"""By what an optimization is judged: what was asked for, what a gate names, what suits the labels, or agreement.

It is the rule of `onnxopt eval` and `onnxopt auto`, too, so that the same data give the same kind of score everywhere.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from onnxopt import gates
from onnxopt.data import Dataset
from onnxopt.errors import UsageError
from onnxopt.evaluation.choosing import AGREEMENT, choose_metric
from onnxopt.evaluation.metrics import Metric, load_metric
from onnxopt.graph import Graph

UNSUITED = "the labels do not suit what the model gives"


@dataclass(frozen=True)
class Judgement:
    """What judges, and why that.

    Attributes:
        metric: The score; None for agreement with the float model.
        why: In words.
    """

    metric: Metric | None
    why: str


def choose_judgement(
    graph: Graph, evaluation: Dataset, asked: Any, wanted: Iterable[gates.Gate], *, suited: bool
) -> Judgement:
    """Settle by what models are judged.

    Args:
        graph: The float model.
        evaluation: What is scored on.
        asked: The metric that the user gave, `agreement`, or None.
        wanted: Gates; one of them may name a metric.
        suited: Whether to look for what suits the labels where nobody names a metric.

    Raises:
        UsageError: The metric is not known or not installed, or the data are broken.
    """
    if isinstance(asked, str) and asked == AGREEMENT:
        return Judgement(None, "asked for")
    named = gates.named_metric(wanted)
    if asked is not None:
        return Judgement(load_metric(asked, metadata=graph.metadata), "asked for")
    if named is not None:
        return Judgement(load_metric(named, metadata=graph.metadata), "named by --require")
    if not suited:
        return Judgement(None, "nothing needs a score")
    found = choose_metric(graph, evaluation)
    if found is None:
        labelled = next(iter(evaluation)).label is not None
        return Judgement(None, UNSUITED if labelled else "there are no labels")
    try:
        return Judgement(load_metric(found, metadata=graph.metadata), "it suits the labels; --metric names another")
    except UsageError as error:
        raise UsageError(f"{error}, or judge by agreement with the float model: --metric {AGREEMENT}") from None

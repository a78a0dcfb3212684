"""Stopping a pipeline early whose pruned model misses the budget already: int8 on top would not win it back."""

from onnxopt.errors import OptimizationError
from onnxopt.evaluation.budget import Judge
from onnxopt.graph import Graph
from onnxopt.manager import Watcher
from onnxopt.pass_api import Context, Pass


class GivingUp(Watcher):
    """Scores the model after each `prune`, and stops where too much is lost."""

    def after_pass(self, step: Pass, before: Graph, after: Graph, context: Context) -> None:  # noqa: ARG002
        """Score.

        Raises:
            OptimizationError: The budget is missed.
        """
        if step.name != "prune":
            return
        judge = context.get(Judge)
        drop = judge.drop(after)
        if drop > judge.tolerated:
            raise OptimizationError(f"pruning alone loses {drop:.4f}, and {judge.allowed:.4f} may be lost")

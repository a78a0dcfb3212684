"""Win back accuracy that quantization has cost, without training.

1. A *sweep* walks over the int8 layers in order of execution and refits each one: to what it reads in the quantized
   model as refitted so far, and to what it gave in the float model (see `analysis.recovery`). How far weights move, and
   whether they are better rounded to nearest, is chosen layer by layer on samples that nothing is fitted to.
2. A sweep may take these steps with each layer: `bias` (the mean of every output channel as it was), `refit` (weights
   by least squares, which make up for errors of the layers before), `scales` (the scale of each channel that costs
   least) and `rounding` (weights rounded one by one, each making up for the errors of those before it).
3. One step after the other is added, and stays only if on held-out samples the worst output came closer to the float
   model, and its answers (top classes, confident detections) are as often the same as before all steps, but for what
   chance makes of that (2 %, or one answer of few). Nothing helps: the graph stays.
   With `--max-drop` a step does not stay, either, that would break a budget that was kept before it.
4. `fast` stops after the refit; what comes after it gains little more.
"""

import math
from collections.abc import Sequence

from onnxopt import Context, Graph, Pass, option
from onnxopt.analysis.recovery import Choices, Closeness, FloatModel, closeness, find_layers, recover, transfer
from onnxopt.analysis.shapes import RunShapes
from onnxopt.calibration.given import came_quantized
from onnxopt.data import Feeds
from onnxopt.errors import UsageError
from onnxopt.evaluation.budget import Judge
from onnxopt.placement.reference import fake_quantized
from onnxopt.runtime.host import cores

STEPS = ("bias", "refit", "scales", "rounding")
LEVELS = {"off": (), "fast": STEPS[:2], "full": STEPS}
JUDGED_ON = 16  # held-out samples
CHOOSING = 3  # a third of the samples chooses how far weights are refitted, and nothing is fitted to it
MEMORY = 2**30  # bytes of activations held at a time
HELD = 12  # tensors as large as the largest that are held per sample, at most, in both models together


class Recover(Pass):
    """Refit biases and weights of int8 layers so that the outputs come back to the float model's.

    When to use it: right after `insert-qdq`; the pipeline `quantize` does it. It needs no labels. Speed of the model
    and number formats stay what they were.

    Example:
        recover{level=full} also tries other scales, and a rounding that makes up for its errors

    Effect: lossy. Biases and weight codes change; a step that does not help on held-out samples is taken back.
    """

    name = "recover"
    effect = "lossy"
    requires = (FloatModel,)
    needs_data = True

    level: str = option(default="fast", help="Which steps are tried.", choices=tuple(LEVELS))
    samples: int = option(default=16, help="Fit on so many samples; fewer where they would fill the memory.", low=1)
    steps: tuple[str, ...] | None = option(
        default=None, help="Take just these steps, whether they help or not; default: try those of the level."
    )

    def run(self, graph: Graph, context: Context) -> bool:
        """Sweep, unless it is known already that no step helps."""
        steps = self.steps
        unknown = [s for s in steps or () if s not in STEPS]
        if unknown:
            raise UsageError(f"recover has no step '{unknown[0]}'; the steps are {', '.join(STEPS)}")
        if not LEVELS[self.level]:
            return False
        if came_quantized(context):
            context.note(graph.source, "was quantized when it came, perhaps trained so; its weights stay as they were")
            return False
        if not find_layers(graph):
            context.note(graph.source, "no int8 layer to refit")
            return False
        if context.fit is None or context.holdout is None:
            context.note(graph.source, "no samples to fit or judge on, so nothing is recovered")
            return False
        run = _Run(graph, context, self)
        steps = run.search(LEVELS[self.level]) if steps is None else steps
        context.resolve(steps=steps)
        if not steps:
            return False
        count = transfer(run.refitted(steps), graph, context.target)
        context.count("layers refitted", count)
        return count > 0

    def reference(self, before: Graph, after: Graph) -> Graph | None:  # noqa: ARG002
        """The same rounding spelled out in float operators."""
        return fake_quantized(after)


class _Run:
    def __init__(self, graph: Graph, context: Context, options: Recover) -> None:
        assert context.fit is not None
        self.graph, self.context = graph, context
        self.reference = context.get(FloatModel).graph
        self.threads = cores()
        self.feeds: list[Feeds] = [s.feeds for s in context.fit.take(self._affordable(options.samples))]
        self.best: tuple[tuple[str, ...], Graph] = ((), graph)

    def _affordable(self, wanted: int) -> int:
        shapes = self.context.get(RunShapes)
        largest = max((shapes.nbytes(t.name) for n in self.graph.nodes for t in n.outputs), default=0)
        return max(1, min(wanted, MEMORY // max(1, HELD * largest)))

    def search(self, steps: Sequence[str]) -> tuple[str, ...]:
        """Add one step after the other; those stay that held-out samples speak for."""
        before, allowed = self.closeness(self.graph), self._allowed()
        best = before
        tried = {"before": best.sqnr_db}
        kept: tuple[str, ...] = ()
        for step in steps if before.sqnr_db < math.inf else ():
            found = self.refitted((*kept, step))
            reached = self.closeness(found)
            tried[step] = reached.sqnr_db
            if not (reached.improves(best) and reached.answers_like(before)):
                self.context.note(self.graph.source, f"{step} was taken back: {reached} against {best} before it")
            elif self._judge is not None and self._judge.drop(found) > allowed:
                self.context.note(self.graph.source, f"{step} was taken back: it breaks the accuracy budget")
            else:
                best, kept = reached, (*kept, step)
                self.best = kept, found
        self.context.record.details["sqnr_db"] = tried
        return kept

    @property
    def _judge(self) -> Judge | None:
        return self.context.get(Judge) if self.context.has(Judge) else None

    def _allowed(self) -> float:
        """The drop of the score that a step may leave: what the budget allows, or what was lost before."""
        if self._judge is None:
            return math.inf
        return max(self._judge.tolerated, self._judge.drop(self.graph))

    def refitted(self, steps: Sequence[str]) -> Graph:
        """Copy of the graph with its layers refitted."""
        if self.best[0] == tuple(steps):
            return self.best[1]
        copy = self.graph.copy()
        choices = Choices(**dict.fromkeys(steps, True))
        fitted_to = len(self.feeds) - (len(self.feeds) // CHOOSING if choices.refit or choices.rounding else 0)
        samples, judged = self.feeds[:fitted_to], self.feeds[fitted_to:]
        recover(copy, self.reference, self.context.target, samples, choices, judged=judged, threads=self.threads)
        return copy

    def closeness(self, graph: Graph) -> Closeness:
        """To the float model, on held-out samples."""
        assert self.context.holdout is not None
        return closeness(graph, self.reference, self.context.holdout.take(JUDGED_ON), threads=self.threads)

"""The Python face: what the command line and a deployment pipeline both call.

```python
from onnxopt import optimize

result = optimize("model.onnx", passes="prune,quantize", data="data.yaml", metric="coco-map")
result.save("model.opt.onnx")
print(result.report.to_json())
```
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import Any

import onnx

from onnxopt import recipe as recipes
from onnxopt.errors import UsageError
from onnxopt.graph import Graph
from onnxopt.manager import Observer
from onnxopt.observers.verify import Level
from onnxopt.optimization import Optimization, Result, Wanted
from onnxopt.optimization.subject import Subject, table_of
from onnxopt.pass_api import Pass
from onnxopt.pipeline import resolve
from onnxopt.targets import Target

__all__ = ["Result", "optimize"]

Passes = str | Iterable[Pass | str]

_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "model": ((str, Path, onnx.ModelProto, Graph), "a file, an onnx.ModelProto or an onnxopt.Graph"),
    "recipe": ((str, Path, recipes.Recipe, NoneType), "a file or an onnxopt.recipe.Recipe"),
    "target": ((str, Target, NoneType), "a name or an onnxopt.targets.Target"),
    "require": ((str, NoneType), "gates in one text, such as 'map>=-1pt,speedup>=1.2'"),
    "samples": ((int, NoneType), "a whole number"),
    "input_shapes": ((Mapping, NoneType), "a mapping from input names to shapes"),
}


def optimize(
    model: str | Path | onnx.ModelProto | Graph,
    passes: Passes | None = None,
    *,
    recipe: str | Path | recipes.Recipe | None = None,
    target: str | Target | None = None,
    data: Any = None,
    eval_data: Any = None,
    metric: Any = None,
    max_drop: str | float | None = None,
    require: str | None = None,
    calibration_table: str | Path | None = None,
    preprocess: Any = None,
    samples: int | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    verify: Level | None = None,
    keep_anyway: bool = False,
    ending: str = ".onnx",
    findings: bool = False,
    observers: Sequence[Observer] = (),
) -> Result:
    """Run passes over a model. The model given is never changed.

    Args:
        model: File, protobuf or graph.
        passes: Pipeline text, or passes and texts in order; default: those of the recipe.
        recipe: File or value; arguments given here come before what it says.
        target: Name or table; default `ort`.
        data: What to calibrate and fit on: path, `Dataset`, or an iterable of feeds; see `--data`.
        eval_data: What to score on; default: the source's validation split, else held-out samples of `data`.
        metric: `top1`, `module:function`, a function …, or `agreement`; of a budget: what suits the labels, else that.
        max_drop: Accuracy budget, `"1%"` of the float score or points; see `evaluation.budget`.
        require: Gates that the result has to keep, such as `"map>=-1pt,speedup>=1.2"`; see `gates`.
        calibration_table: File of ranges. If it is there, only what it lacks is measured; else it is written.
        preprocess: How pictures become inputs; default: inferred from metadata.
        samples: Use at most so many of `data`.
        input_shapes: Input name to shape, for dynamic inputs.
        verify: off, structure, outputs or full; default outputs, structure for large models.
        keep_anyway: Undo nothing, and hand back whatever came out.
        ending: Of the file that `Result.save` will be given; the size in the report is that of this format.
        findings: Measure what `Result.document` shows beside the figures, too: layers, tensors, pictures, memory.
        observers: Watch the passes.

    Raises:
        UsageError: The model, the data or the request cannot be used as given.
        OptimizationError: A pass broke its promise, outputs are not finite, or the budget is missed.
        GateMissed: The result does not keep what `require` asks for, with or without `keep_anyway`.
    """
    _check_types(model=model, recipe=recipe, target=target, require=require, samples=samples, input_shapes=input_shapes)
    said = recipes.load_recipe(recipe) if isinstance(recipe, str | Path) else recipe
    if passes is None and said is None:
        raise UsageError("nothing to do: give passes or a recipe")
    asked = Wanted(passes, target, data, eval_data, metric, max_drop, calibration_table, preprocess, samples, require)
    wanted = asked.or_else(said)
    subject = Subject(model, table_of(wanted.target or "ort"), input_shapes)
    stages, undo = resolve(wanted.pipeline), not keep_anyway and (said is None or said.never_slower)
    with recipes.naming_recipe(said):
        work = Optimization(subject, stages, wanted, undo=undo, enforced=not keep_anyway, ending=ending)
    result = work.run(verify, observers)
    return replace(result, findings=work.findings(result.graph)) if findings else result


def _check_types(**given: object) -> None:
    for name, value in given.items():
        kinds, wanted = _TYPES[name]
        if not isinstance(value, kinds):
            raise UsageError(f"optimize: {name} is a value of type {type(value).__name__}; give {wanted}")

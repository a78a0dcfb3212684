"""The request: what is evaluated, on what, and how."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from onnxopt import registry
from onnxopt.errors import UsageError
from onnxopt.graph import Graph
from onnxopt.optimization.subject import Subject
from onnxopt.runtime.adapter import load_runtime
from onnxopt.runtime.ort import OrtRuntime
from onnxopt.scoring.work import Evaluated, Progress, Work
from onnxopt.targets import Target

Model = str | Path | onnx.ModelProto | Graph


def evaluate(
    model: Model,
    data: Any,
    *,
    target: str | Target = "ort",
    metric: Any = None,
    decode: str | None = None,
    reference: Model | None = None,
    preprocess: Any = None,
    samples: int | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    batch: int | None = None,
    threads: int = 1,
    provider: str | None = None,
    require: str | None = None,
    predictions: bool = False,
    findings: bool = False,
    progress: Progress | None = None,
) -> Evaluated:
    """Run a model over samples and say how good it is.

    Args:
        model: File, protobuf or graph.
        data: What to score on; see `--data`. Of a source with splits the one for validation is read.
        target: Whose runtime runs it; where that is not here, ONNX Runtime runs the graph as it is written.
        metric: See `load_metric`; default: what suits the labels.
        decode: Decoder by name, such as `yolox` or `ctc{alphabet=FILE}`; default: found.
        reference: The float model to agree with.
        preprocess: How pictures become inputs; default: inferred from metadata.
        samples: Use at most so many, spread evenly.
        input_shapes: Input name to shape, for dynamic inputs.
        batch: How many samples to run at once; default: the model's own batch, or 1.
        threads: Of each session.
        provider: Execution provider of ONNX Runtime, such as `cuda`.
        require: Gates, such as `map>=-1pt,latency<=20ms`.
        predictions: Keep what the model said of each sample.
        findings: With a reference, measure what a page shows beside the figures: layers, tensors, pictures.
        progress: Called with the number of samples done, and of all.

    Raises:
        UsageError: The model, the data or the request cannot be used, or there is nothing to judge by.
        OptimizationError: A runtime or the metric failed, or something is NaN.
        GateMissed: The model is not as good as required.
    """
    subject = Subject(model, _target(target, provider), input_shapes, batch or 1)
    shapes = {spec.name: spec.shape for spec in subject.inputs}
    compared = _reference(reference, subject.target, shapes) if reference is not None else None
    work = Work(subject, compared, decode, batch, threads)
    work.open(data, preprocess, samples)
    work.choose(metric, require)
    return work.run(keep=predictions, findings=findings, progress=progress)


def _target(target: str | Target, provider: str | None) -> Target:
    table = registry.load_target(target) if isinstance(target, str) else target
    if provider is None:
        return table
    if not isinstance(load_runtime(table), OrtRuntime):
        raise UsageError(f"--provider is of ONNX Runtime on this machine, where target '{table.name}' does not run")
    return replace(table, runtime=OrtRuntime(provider))


def _reference(model: Model, target: Target, shapes: Mapping[str, Sequence[int]]) -> Subject:
    try:
        return Subject(model, target, shapes)
    except UsageError as error:
        raise UsageError(f"the reference cannot be compared: {error}") from None

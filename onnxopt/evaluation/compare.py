"""Two model files on the same inputs."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from onnxopt.data import Array, Feeds, InputSpec, Sample
from onnxopt.errors import UsageError
from onnxopt.evaluation.agreement import Agreement, Comparison
from onnxopt.evaluation.inputs import fill_batch, resolve_inputs
from onnxopt.graph import Graph
from onnxopt.runtime.adapter import naming_model
from onnxopt.runtime.ort import OrtSession


def matching_inputs(reference: Sequence[InputSpec], other: Graph) -> tuple[InputSpec, ...]:
    """The other model's inputs, at the sizes of the reference's.

    Inputs are matched by name where the names are the same, else by position.

    Args:
        reference: The first model's inputs.
        other: The second model.

    Returns:
        In the order of `reference`.

    Raises:
        UsageError: The models do not take the same inputs.
    """
    names = [t.name for t in other.inputs]
    if len(names) != len(reference):
        raise UsageError(f"{other.source} takes {len(names)} inputs, the first model {len(reference)}")
    order = [spec.name for spec in reference]
    paired = order if set(order) == set(names) else names
    shapes = {name: spec.shape for name, spec in zip(paired, reference, strict=True)}
    try:
        specs = {spec.name: spec for spec in resolve_inputs(other, shapes)[0]}
    except UsageError as error:
        raise UsageError(f"{other.source} does not take what the first model takes: {error}") from None
    return tuple(specs[name] for name in paired)


def compare_files(
    files: tuple[Path, Path],
    inputs: tuple[Sequence[InputSpec], Sequence[InputSpec]],
    samples: Iterable[Sample],
    metadata: Mapping[str, str],
    *,
    threads: int = 1,
) -> Agreement:
    """Run both models on all samples, in constant memory, and say how well they agree.

    Args:
        files: The reference and the other model.
        inputs: The inputs of each, in matching order.
        samples: Feeds for the reference.
        metadata: The reference's, to know a detector by.
        threads: Per session.

    Raises:
        UsageError: ONNX Runtime cannot load one of them, or they give different numbers of outputs.
        OptimizationError: ONNX Runtime cannot run one of them.
    """
    first, second = (_opened(file, threads) for file in files)
    if len(first.output_names) != len(second.output_names):
        raise UsageError(
            f"{files[0]} has {len(first.output_names)} outputs, {files[1]} {len(second.output_names)}: "
            "they cannot be compared one by one"
        )
    same = set(first.output_names) == set(second.output_names)
    names = first.output_names if same else second.output_names
    sums = Comparison(metadata)
    for sample in samples:
        feeds = fill_batch(sample.feeds, inputs[0])
        wanted = first.run(feeds)
        other = second.run(_translated(feeds, *inputs))
        got = dict(zip(first.output_names, (other[name] for name in names), strict=True))
        numbers = {name: array for name, array in wanted.items() if _is_numeric(array) and _is_numeric(got[name])}
        sums.update(numbers, {name: got[name] for name in numbers}, sample)
    return sums.result()


def _opened(file: Path, threads: int) -> OrtSession:
    with naming_model(file):
        return OrtSession(file, threads=threads)


def _is_numeric(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiub"


def _translated(feeds: Feeds, reference: Sequence[InputSpec], other: Sequence[InputSpec]) -> dict[str, Array]:
    """Feeds of the reference under the names, and in the types, of the other model."""
    return {theirs.name: feeds[ours.name].astype(theirs.dtype) for ours, theirs in zip(reference, other, strict=True)}

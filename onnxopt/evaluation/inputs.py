"""Which sizes a model is run at: numbers for every dimension that the file leaves open.

In this order: what the user says; the `imgsz` of the metadata; then 224 x 224, 640 x 640, 48 x 320 and 32 x 320
until ONNX Runtime runs the model, first those whose height or width the file fixes. The batch is 1. What was chosen is
said.
"""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import TypeAlias

import numpy as np

from onnxopt.data.sample import Array, Feeds, InputSpec
from onnxopt.errors import OptimizationError, UsageError, nearest
from onnxopt.graph import Graph, Tensor
from onnxopt.model_io import PROTOBUF_LIMIT
from onnxopt.report.table import bytes_text
from onnxopt.runtime import host
from onnxopt.runtime.ort import OrtSession

Sizes: TypeAlias = Mapping[str, Sequence[int]]
Dimensions: TypeAlias = tuple[int | str | None, ...]

USUAL_SIZES = ((224, 224), (640, 640), (48, 320), (32, 320))  # height, width: classifiers, detectors, lines of text
LARGEST = 2**63 - 1  # a dimension is an int64
_COLOURS = (1, 3, 4)


def parse_input_shapes(texts: Iterable[str], graph: Graph) -> dict[str, tuple[int, ...]]:
    """Read `--input-shape NAME:1x3x640x640`; the name may be left out where the model has one input.

    Raises:
        UsageError: Not of this form, an unknown input, or one input given twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    names = [t.name for t in graph.inputs]
    for text in texts:
        name, colon, sizes = text.rpartition(":")  # names may hold colons themselves
        if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sizes):
            raise UsageError(f"input shape '{text}' is not of the form NAME:1x3x640x640")
        if not colon:
            if len(names) > 1:
                raise UsageError(f"input shape '{text}' does not say of which input; the model has {', '.join(names)}")
            name = names[0]
        if name in shapes:
            raise UsageError(f"the shape of input '{name}' is given twice")
        shapes[name] = tuple(_dimension(size, text) for size in sizes.split("x"))
    _check_names(shapes, names)
    return shapes


def resolve_inputs(
    graph: Graph, overrides: Sizes | None = None, metadata: Mapping[str, str] | None = None, batch: int = 1
) -> tuple[tuple[InputSpec, ...], list[str]]:
    """Find numbers for all dimensions of all inputs.

    A symbol that an override fixes in one input has the same size in the others. Where ONNX Runtime cannot load the
    model at all (operators of other runtimes, more than 2 GB), the first candidate is taken untried, and that is said.

    Args:
        graph: The model.
        overrides: Input name to shape.
        metadata: What may hold `imgsz`; default: the model's own.
        batch: How many of these the caller runs at once; the sentences say it.

    Returns:
        The inputs in the model's order, and sentences that say what was chosen and why.

    Raises:
        UsageError: An override that does not fit the model, an input that is no tensor of numbers or that does not
            fit into memory, or no size at which the model runs.
    """
    overrides = overrides or {}
    _check_names(overrides, [t.name for t in graph.inputs])
    symbols: dict[str, int] = {}
    shapes: dict[str, Dimensions] = {}
    for tensor in graph.inputs:
        shapes[tensor.name] = _declared(tensor, overrides.get(tensor.name))
        if tensor.name in overrides:
            symbols |= _bind(tensor, shapes[tensor.name], overrides[tensor.name])
    open_shapes = {
        name: tuple(overrides[name]) if name in overrides else _substitute(shape, symbols)
        for name, shape in shapes.items()
    }
    specs, why = _choose(graph, open_shapes, graph.metadata if metadata is None else metadata, batch)
    _refuse_huge([spec if _fixed_batch(open_shapes[spec.name]) else _batched(spec, batch) for spec in specs])
    return specs, _said(open_shapes, specs, why, batch)


def fill_batch(feeds: Feeds, inputs: Iterable[InputSpec]) -> dict[str, Array]:
    """Repeat a sample until it fills the batch that the model is run at; samples themselves have a batch of 1."""
    full = {}
    for spec in inputs:
        value = feeds[spec.name]
        times = spec.shape[0] // value.shape[0] if spec.shape and value.shape[0] else 1
        full[spec.name] = np.concatenate([value] * times) if times > 1 else value
    return full


def _dimension(size: str, text: str) -> int:
    if len(size) > len(str(LARGEST)) or int(size) > LARGEST:
        raise UsageError(f"input shape '{text[:80]}': a dimension is at most {LARGEST}")
    return int(size)


def _refuse_huge(specs: Iterable[InputSpec]) -> None:
    """Refuse at once what could not be run; a model needs at least twice what its inputs take."""
    for spec in specs:
        nbytes, sizes = prod(spec.shape) * spec.dtype.itemsize, "x".join(map(str, spec.shape))
        if 2 * nbytes > host.memory():
            raise UsageError(
                f"input '{spec.name}' needs {bytes_text(nbytes)} at {sizes}, more than half of what this machine has; "
                "run fewer samples at once, give a smaller --input-shape, or export with a smaller batch"
            )


def _check_names(shapes: Iterable[str], names: Sequence[str]) -> None:
    for name in shapes:
        if name not in names:
            raise UsageError(f"the model has no input '{name}'{nearest(name, names)}")


def _declared(tensor: Tensor, override: Sequence[int] | None) -> Dimensions:
    """The dimensions in the file: a number, a symbol, or None each."""
    if tensor.dtype is None or np.dtype(tensor.dtype).kind not in "fiub":
        raise UsageError(f"input '{tensor.name}' is no tensor of numbers; onnxopt cannot run such a model")
    if tensor.shape is None:
        if override is None:
            raise UsageError(f"input '{tensor.name}' has no shape, not even a rank; give --input-shape")
        return (None,) * len(override)
    if 0 in tensor.shape:
        sizes = ", ".join(map(str, tensor.shape))
        raise UsageError(f"input '{tensor.name}' [{sizes}] has a dimension of 0, so there is nothing to compute")
    # Exporters of PaddlePaddle write -1 and '?' for 'any', and one '?' need not equal the next.
    return tuple(None if d in (None, "", "?") or (isinstance(d, int) and d < 0) else d for d in tensor.shape)


def _bind(tensor: Tensor, declared: Dimensions, sizes: Sequence[int]) -> dict[str, int]:
    """Symbols of one input to numbers."""
    given, known = "x".join(map(str, sizes)), ", ".join("?" if d is None else str(d) for d in declared)
    if len(sizes) != len(declared):
        raise UsageError(f"input '{tensor.name}' has {len(declared)} dimensions [{known}], not {len(sizes)} ({given})")
    if any(isinstance(d, int) and d != size for d, size in zip(declared, sizes, strict=True)):
        raise UsageError(f"input '{tensor.name}' is fixed at [{known}]; it cannot be run at {given}")
    return {d: int(size) for d, size in zip(declared, sizes, strict=True) if isinstance(d, str)}


def _substitute(shape: Dimensions, symbols: Mapping[str, int]) -> Dimensions:
    return tuple(symbols.get(d, d) if isinstance(d, str) else d for d in shape)


def _choose(
    graph: Graph, declared: Mapping[str, Dimensions], metadata: Mapping[str, str], batch: int
) -> tuple[tuple[InputSpec, ...], str]:
    shapes = _with_batches(declared)
    if not any(_spatial(shape) for shape in shapes.values()):
        return _specs(graph, shapes, USUAL_SIZES[0]), f"the batch is {batch}"
    candidates = list(_candidates(graph, shapes, metadata))
    try:
        session = _session(graph)
    except OptimizationError as error:
        specs, why = candidates[0]
        return specs, f"{why}; not tried: {error}"
    failure = ""
    for specs, why in candidates:
        _refuse_huge(specs)
        try:
            session.run({spec.name: _ones(spec) for spec in specs})
        except OptimizationError as error:
            failure = str(error)
            continue
        return specs, why
    tried = ", ".join("x".join(map(str, spec.shape)) for specs, _ in candidates for spec in specs)
    raise UsageError(f"the model runs at none of the usual sizes ({tried}); give --input-shape NAME:SIZES. {failure}")


def _with_batches(shapes: Mapping[str, Dimensions]) -> dict[str, Dimensions]:
    """A symbol that is the batch of one input is 1 wherever else it stands: [batch, 512] beside [2, batch, 128].

    One that is also a height or a width of [N, C, H, W] is none.
    """
    sized = {shape[axis] for shape in shapes.values() if len(shape) == 4 for axis in _picture(shape)}
    first = {shape[0] for shape in shapes.values() if shape and 0 not in _picture(shape)}
    batches = {d for d in first - sized if isinstance(d, str)}
    return {name: tuple(1 if d in batches else d for d in shape) for name, shape in shapes.items()}


def _candidates(
    graph: Graph, shapes: Mapping[str, Dimensions], metadata: Mapping[str, str]
) -> Iterator[tuple[tuple[InputSpec, ...], str]]:
    stated = image_size(metadata)
    sizes = [(stated, "the metadata's imgsz")] if stated else []
    fixed = [(shape[axis], i) for shape in shapes.values() for axis, i in _picture(shape).items()]
    usual = sorted(USUAL_SIZES, key=lambda size: -sum(size[i] == known for known, i in fixed))
    sizes += [(size, "the first usual size at which the model runs") for size in usual]
    seen = set()
    for size, why in sizes:
        specs = _specs(graph, shapes, size)
        key = tuple(spec.shape for spec in specs)
        if key not in seen:
            seen.add(key)
            yield specs, why


def image_size(metadata: Mapping[str, str]) -> tuple[int, int] | None:
    """Height and width from `imgsz`, written as `640`, `[640, 640]` or `(640, 640)`."""
    try:
        value = ast.literal_eval(metadata.get("imgsz", ""))
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: nested too deep
        return None
    sizes = tuple(value) if isinstance(value, list | tuple) else (value, value)
    if len(sizes) == 2 and all(isinstance(size, int) and size > 0 for size in sizes):
        return int(sizes[0]), int(sizes[1])
    return None


def _spatial(shape: Dimensions) -> dict[int, int]:
    """Axes of an image input whose size is open: axis to 0 for height, 1 for width."""
    return {axis: i for axis, i in _picture(shape).items() if not isinstance(shape[axis], int)}


def _picture(shape: Dimensions) -> dict[int, int]:
    """Axes of an image input: axis to 0 for height, 1 for width. Of [?, 16000, 1] the first is the batch."""
    if len(shape) not in {3, 4}:
        return {}
    last = shape[-1] in _COLOURS and shape[-3] not in _COLOURS
    if last and len(shape) == 3 and isinstance(shape[1], int) and not isinstance(shape[0], int):
        return {}
    height = len(shape) - (3 if last else 2)
    return {height: 0, height + 1: 1}


def _fixed_batch(shape: Dimensions) -> bool:
    return len(shape) < 2 or isinstance(shape[0], int)


def _batched(spec: InputSpec, batch: int) -> InputSpec:
    return replace(spec, shape=(batch, *spec.shape[1:]))


def _specs(graph: Graph, shapes: Mapping[str, Dimensions], size: tuple[int, int]) -> tuple[InputSpec, ...]:
    specs = []
    for tensor in graph.inputs:
        shape = shapes[tensor.name]
        spatial = _spatial(shape)
        colours = {len(shape) - 3} if len(shape) == 4 and spatial else set()
        fixed = tuple(
            d if isinstance(d, int) else size[spatial[axis]] if axis in spatial else 3 if axis in colours else 1
            for axis, d in enumerate(shape)
        )
        specs.append(InputSpec(tensor.name, fixed, np.dtype(tensor.dtype)))
    return tuple(specs)


def _session(graph: Graph) -> OrtSession:
    if graph.nbytes() > PROTOBUF_LIMIT:
        raise OptimizationError("the model is larger than 2 GB")
    return OrtSession(graph.to_proto(), optimized=False)


def _ones(spec: InputSpec) -> Array:
    return np.ones(spec.shape, spec.dtype)


def _said(shapes: Mapping[str, Dimensions], specs: Iterable[InputSpec], why: str, batch: int) -> list[str]:
    notes = []
    for spec in specs:
        shape = shapes[spec.name]
        if any(not isinstance(d, int) for d in shape):
            declared = ", ".join("?" if d is None else str(d) for d in shape)
            run = spec if _fixed_batch(shape) else _batched(spec, batch)
            sizes = "x".join(map(str, run.shape))
            notes.append(f"input '{spec.name}' [{declared}] is run at {sizes}: {why}")
    return notes

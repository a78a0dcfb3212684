"""Times of OpenVINO's kernels, from its performance counters and its runtime model."""

import re
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

from onnxopt.runtime.kernel_time import KernelTime, undisturbed

SPLIT_BIAS = "/WithoutBiases"  # what the ONNX frontend appends to a Conv whose bias becomes an Add
NUMBER = re.compile(r"_\d+$")  # appended where OpenVINO makes several layers of one
PRECISIONS = {"i8": "int8", "u8": "int8", "f32": "float32", "bf16": "bfloat16", "f16": "float16"}


def kernels_of(ordered: Iterable[Any], milliseconds: Mapping[str, list[float]]) -> list[KernelTime]:
    """Time of each kernel.

    Args:
        ordered: The layers that OpenVINO executes, in order: `get_ordered_ops` of the runtime model.
        milliseconds: Name of a layer to what its runs took; layers that are not among them did not run.
    """
    return [
        _kernel(op, milliseconds[op.get_friendly_name()]) for op in ordered if op.get_friendly_name() in milliseconds
    ]


def _kernel(op: Any, milliseconds: list[float]) -> KernelTime:
    told = {key: str(value.astype(str)) for key, value in op.get_rt_info().items()}
    names = [n.removesuffix(SPLIT_BIAS) for n in told.get("originalLayersNames", "").split(",") if n]
    names += [NUMBER.sub("", name) for name in names]
    tensors = [*(i.get_source_output() for i in op.inputs()), *op.outputs()]
    readers = [i.get_node().get_friendly_name() for o in op.outputs() for i in o.get_target_inputs()]
    return KernelTime(
        name=op.get_friendly_name(),
        op=told["layerType"],
        milliseconds=undisturbed(milliseconds),
        precision=_precision(told["primitiveType"]),
        origins=tuple(dict.fromkeys(names)),
        readers=tuple(dict.fromkeys(readers)),
        moved=sum(_nbytes(t) for t in tensors if not _is_constant(t)),
    )


def _precision(kernel: str) -> str:
    """Kernels end in what they compute in, e.g. `brgconv_avx512_I8`."""
    return PRECISIONS.get(kernel.rpartition("_")[2].lower(), "")


def _is_constant(tensor: Any) -> bool:
    return str(tensor.get_node().get_rt_info()["layerType"].astype(str)) == "Const"


def _nbytes(tensor: Any) -> int:
    shape = tensor.get_partial_shape()
    return prod(shape.to_shape()) * tensor.get_element_type().size if shape.is_static else 0

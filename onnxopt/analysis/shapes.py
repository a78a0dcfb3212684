"""Shapes and types of all tensors."""

from math import prod
from typing import Any, Self

import numpy as np
import onnx
from onnx import helper, shape_inference

from onnxopt.data import InputSpec
from onnxopt.errors import OptimizationError
from onnxopt.graph import Graph, Tensor, Variable
from onnxopt.pass_api import Analysis, Context
from onnxopt.runtime.ort import OrtSession

Shape = tuple[int | str | None, ...]

_SAME_SHAPE = {("com.microsoft", "QuickGelu"), ("com.microsoft", "BiasGelu"), ("com.microsoft", "Gelu")}


class Shapes(Analysis):
    """Shape and type of each tensor by name, as ONNX shape inference finds them; symbols stay symbols."""

    def __init__(self, shapes: dict[str, Shape], dtypes: dict[str, Any]) -> None:
        self._shapes = shapes
        self._dtypes = dtypes

    @classmethod
    def compute(cls, graph: Graph, context: Context) -> Self:  # noqa: ARG003
        """Infer from the graph's own input shapes."""
        return cls(*infer(graph))

    def shape(self, tensor: Tensor) -> Shape | None:
        """Dimensions: a number, a symbol, or None each; None where not even the rank is known."""
        if not isinstance(tensor, Variable) and tensor.shape is not None:
            return tuple(tensor.shape)
        return self._shapes.get(tensor.name)

    def rank(self, tensor: Tensor) -> int | None:
        """Number of dimensions, where known."""
        shape = self.shape(tensor)
        return None if shape is None else len(shape)

    def static(self, tensor: Tensor) -> tuple[int, ...] | None:
        """Dimensions, where all are numbers."""
        shape = self.shape(tensor)
        if shape is None or not all(isinstance(d, int) for d in shape):
            return None
        return tuple(d for d in shape if isinstance(d, int))

    def dtype(self, tensor: Tensor) -> np.dtype[Any] | None:
        """Element type, where known."""
        if not isinstance(tensor, Variable) and tensor.dtype is not None:
            return _numpy_dtype(tensor.dtype)
        dtype: np.dtype[Any] | None = self._dtypes.get(tensor.name)
        return dtype

    def nbytes(self, name: str) -> int:
        """Bytes of a tensor by name; 0 where its size is not known."""
        shape = self._shapes.get(name)
        if shape is None or not all(isinstance(d, int) for d in shape):
            return 0
        item: int = np.dtype(self._dtypes.get(name, np.float32)).itemsize
        return prod(d for d in shape if isinstance(d, int)) * item


class RunShapes(Shapes):
    """Shapes at the sizes that the model is run at: the context's inputs put in for the symbols."""

    @classmethod
    def compute(cls, graph: Graph, context: Context) -> Self:
        """Infer with the inputs' dimensions replaced by those of `context.inputs`.

        Where inference stops (shape arithmetic that ONNX's rules cannot follow), the model is run once and tells.
        """
        shapes, dtypes = infer(graph, context.inputs)
        unknown = [t.name for n in graph.nodes for t in n.outputs if t.name and not _is_static(shapes.get(t.name))]
        if unknown and context.inputs and graph.nbytes() < RUN_UP_TO:
            shapes |= _observed(graph, unknown, dtypes, context.inputs)
        return cls(shapes, dtypes)


RUN_UP_TO = 2**30  # bytes of weights; larger models are not run for their shapes


def _is_static(shape: Shape | None) -> bool:
    return shape is not None and all(isinstance(d, int) for d in shape)


def _observed(
    graph: Graph, names: list[str], dtypes: dict[str, Any], inputs: tuple[InputSpec, ...]
) -> dict[str, Shape]:
    """Shapes seen in one run of the model; empty where ONNX Runtime cannot run it."""
    copy = graph.copy()
    tensors = copy.tensors()
    typed = [name for name in names if dtypes.get(name) is not None]
    own = {t.name for t in copy.outputs}
    for name in typed:
        if name not in own:
            tensors[name].dtype, tensors[name].shape = dtypes[name], None
            copy.outputs.append(tensors[name])
    try:
        values = OrtSession(copy.to_proto(), optimized=False).run({i.name: np.ones(i.shape, i.dtype) for i in inputs})
    except OptimizationError:
        return {}
    return {name: tuple(values[name].shape) for name in typed}


def infer(graph: Graph, inputs: tuple[InputSpec, ...] = ()) -> tuple[dict[str, Shape], dict[str, Any]]:
    """Shapes and dtypes by name. Contrib operators that keep their input's shape are seen through."""
    model = graph.to_proto(weights=False)
    if inputs:
        _pin(model, {i.name: i.shape for i in inputs})
    for node in model.graph.node:
        if (node.domain, node.op_type) in _SAME_SHAPE:
            node.domain, node.op_type = "", "Sigmoid"
            del node.attribute[:]
            del node.input[1:]
    inferred = shape_inference.infer_shapes(model, strict_mode=False, data_prop=True)
    shapes: dict[str, Shape] = {}
    dtypes: dict[str, Any] = {}
    for value in [*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info]:
        kind = value.type.tensor_type
        if kind.elem_type:
            dtypes[value.name] = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        if kind.HasField("shape"):
            shapes[value.name] = tuple(_dim(d) for d in kind.shape.dim)
    return shapes, dtypes


def _numpy_dtype(dtype: Any) -> np.dtype[Any]:
    """Graphsurgeon has ONNX's own number for types that NumPy lacks (bfloat16, float8)."""
    return np.dtype(helper.tensor_dtype_to_np_dtype(dtype) if isinstance(dtype, int) else dtype)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return str(dim.dim_param) or None


def _pin(model: onnx.ModelProto, sizes: dict[str, tuple[int, ...]]) -> None:
    """Give inputs numbers for symbols, and forget recorded shapes that spoke of the symbols."""
    dynamic = False
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        for dim, size in zip(dims, sizes.get(value.name, ()), strict=False):
            if not dim.HasField("dim_value") or dim.dim_value != size:
                dynamic = True
                dim.dim_value = size
    if dynamic:
        del model.graph.value_info[:]
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")

"""Shapes that follow from sizes which only the walk knows, node by node."""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from onnxopt.analysis.channels.sizes import Sizes, numbers
from onnxopt.analysis.shapes import Shape, Shapes
from onnxopt.graph import Graph, Node, Tensor, is_standard, onnx_dtype


class LateShapes:
    """Shapes of all tensors: as inferred for the whole graph, and where that stopped, from the inputs of the node.

    Args:
        graph: The graph, its nodes in order of execution.
        shapes: What is known beforehand.
    """

    def __init__(self, graph: Graph, shapes: Shapes) -> None:
        self._graph = graph
        self._shapes = shapes
        self._found: dict[str, Shape] = {}
        self._dtypes: dict[str, np.dtype[np.generic]] = {}
        self._protos: list[onnx.NodeProto] = []
        self._symbols = {d for t in graph.inputs for d in t.shape or () if isinstance(d, str)}

    def shape(self, tensor: Tensor) -> Shape | None:
        """Dimensions, None where not even the rank is known."""
        return self._found.get(tensor.name) or self._shapes.shape(tensor)

    def dtype(self, tensor: Tensor) -> np.dtype[np.generic] | None:
        """Element type, where known."""
        return self._dtypes.get(tensor.name) or self._shapes.dtype(tensor)

    def complete(self, position: int, node: Node, sizes: Callable[[Tensor], Sizes | None]) -> None:
        """Infer the outputs of a node anew where something of them is not known."""
        if not is_standard(node) or all(self._is_known(t) for t in node.outputs if t.name):
            return
        target = sizes(node.inputs[1]) if node.op == "Reshape" and len(node.inputs) > 1 else None
        if target is not None and numbers(target) is None:
            self._found[node.outputs[0].name] = tuple(
                s.symbol if s.value is None else (s.value if s.value > 0 else None) for s in target
            )
            return
        types: dict[str, onnx.TypeProto] = {}
        data: dict[str, onnx.TensorProto] = {}
        for tensor in node.inputs:
            dtype = self.dtype(tensor)
            if not tensor.name:
                continue
            if dtype is None:
                return
            shape = self.shape(tensor)
            dims = None if shape is None else [None if d == -1 else d for d in shape]
            types[tensor.name] = helper.make_tensor_type_proto(onnx_dtype(dtype), dims)
            known = sizes(tensor)
            values = None if known is None else numbers(known)
            if known is not None and values is not None:
                array = np.asarray(values, dtype).reshape(known.shape)
                data[tensor.name] = numpy_helper.from_array(array, tensor.name)
        self._store(node, self._infer(position, node, types, data))

    def _is_known(self, tensor: Tensor) -> bool:
        shape = self.shape(tensor)
        known = shape is not None and all(isinstance(d, int) or d in self._symbols for d in shape)
        return known and self.dtype(tensor) is not None

    def _infer(
        self, position: int, node: Node, types: dict[str, onnx.TypeProto], data: dict[str, onnx.TensorProto]
    ) -> dict[str, onnx.TypeProto]:
        if not self._protos:
            self._protos = list(self._graph.to_proto(weights=False).graph.node)
        try:
            schema = onnx.defs.get_schema(node.op, self._graph.opset, "")
            imports = [helper.make_opsetid("", self._graph.opset)]
            found: dict[str, onnx.TypeProto] = shape_inference.infer_node_outputs(
                schema, self._protos[position], types, data, opset_imports=imports
            )
        except (onnx.defs.SchemaError, onnx.checker.ValidationError, shape_inference.InferenceError):
            return {}
        return found

    def _store(self, node: Node, found: dict[str, onnx.TypeProto]) -> None:
        for tensor in node.outputs:
            kind = found.get(tensor.name, onnx.TypeProto()).tensor_type
            if kind.elem_type:
                self._dtypes[tensor.name] = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
            if kind.HasField("shape"):
                dims = [int(d.dim_value) if d.HasField("dim_value") else d.dim_param or None for d in kind.shape.dim]
                before = self.shape(tensor) or dims
                self._found[tensor.name] = tuple(
                    a if isinstance(a, int) or not isinstance(b, int) else b for a, b in zip(before, dims, strict=True)
                )

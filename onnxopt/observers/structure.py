"""Whether a graph is a valid ONNX model: the checker, strict shape inference, and an unchanged interface."""

import onnx
from onnx import checker, shape_inference

from onnxopt.errors import OptimizationError
from onnxopt.graph import Graph

STRIP_ABOVE = 200 * 2**20  # bytes of weights; above this the checker sees their types and shapes alone


def structural_fault(graph: Graph) -> str:
    """What is wrong with a graph as an ONNX model; "" where nothing is.

    Operators of domains that ONNX does not define are not judged.
    """
    large = graph.nbytes() > STRIP_ABOVE
    model = graph.to_proto(weights=not large)
    try:
        checker.check_model(_weights_as_inputs(model) if large else model)
        shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (checker.ValidationError, shape_inference.InferenceError, ValueError, RuntimeError) as error:
        return " ".join(str(error).split())[:400]
    return ""


def check_structure(before: Graph, after: Graph, name: str) -> str:
    """See that a pass left a valid model with the interface it had.

    Returns:
        "" or a remark: a model that was at fault before the pass is not held against it.

    Raises:
        OptimizationError: It did not; names the pass.
    """
    for kind in ("inputs", "outputs"):
        was, is_ = ([t.name for t in getattr(graph, kind)] for graph in (before, after))
        if was != is_:
            raise OptimizationError(f"pass {name} changed the model's {kind} from {', '.join(was)} to {', '.join(is_)}")
    fault = structural_fault(after)
    if not fault:
        return ""
    if structural_fault(before):
        return f"the model had a fault before this pass: {fault}"
    raise OptimizationError(f"pass {name} left an invalid model: {fault}")


def _weights_as_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """The checker refuses initializers without data; as inputs they keep type and shape."""
    kept = []
    listed = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            kept.append(tensor)
        elif tensor.name not in listed:
            model.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del model.graph.initializer[:]
    model.graph.initializer.extend(copies)
    return model

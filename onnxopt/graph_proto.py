"""Between the protobuf model and graphsurgeon's graph, losing nothing on the way.

graphsurgeon's own export forgets what it has no field for: `metadata_props`, doc strings of nodes, unused
initializers, initializers that are also graph inputs, attribute types it does not know. Each of these is kept
here beside the graph:

* the *shell*: the model with everything but nodes and initializers;
* on each node its *origin*: the protobuf node that it was read from. An attribute that no pass has changed is
  written back from there, byte for byte.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper, numpy_helper
from onnx_graphsurgeon.ir.tensor import LazyValues

_CARRIED = {  # attribute types that graphsurgeon reads and writes
    onnx.AttributeProto.FLOAT,
    onnx.AttributeProto.INT,
    onnx.AttributeProto.STRING,
    onnx.AttributeProto.TENSOR,
    onnx.AttributeProto.GRAPH,
    onnx.AttributeProto.FLOATS,
    onnx.AttributeProto.INTS,
    onnx.AttributeProto.STRINGS,
}


class Origin:
    """What a protobuf node held that graphsurgeon's node does not.

    Attributes:
        node: The protobuf node without its attributes.
        attributes: Attribute name to the protobuf attribute and the value that graphsurgeon read from it.
        uncarried: Attributes of types that graphsurgeon cannot hold.
    """

    def __init__(self, node: onnx.NodeProto, read: dict[str, Any], uncarried: list[onnx.AttributeProto]) -> None:
        self.node = onnx.NodeProto()
        for field in ("name", "domain", "doc_string", "overload"):
            if node.HasField(field):
                setattr(self.node, field, getattr(node, field))
        self.node.metadata_props.extend(node.metadata_props)
        self.attributes = {
            a.name: (a, list(read[a.name]) if isinstance(read[a.name], list) else read[a.name])
            for a in node.attribute
            if a.name in read and not isinstance(read[a.name], gs.Graph)
        }
        self.uncarried = uncarried


def import_model(model: onnx.ModelProto) -> tuple[gs.Graph, onnx.ModelProto]:
    """Read a protobuf model into a graphsurgeon graph. The graph refers to `model`, which must not be used again.

    Returns:
        The graph and the shell.
    """
    shell = model_shell(model)
    del model.functions[:]  # kept verbatim in the shell; graphsurgeon would rewrite their constants
    protos = list(_all_nodes(model.graph))  # held, so that their identities stay
    uncarried = {id(proto): _take_uncarried(proto) for proto in protos}
    ir = gs.import_onnx(model)
    _attach_origins(ir, model.graph, uncarried)
    return ir, shell


def model_shell(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy of a model without its nodes and initializers; never touches the weights."""
    shell = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name == "graph":
            continue
        if field.is_repeated:
            getattr(shell, field.name).extend(value)
        elif field.message_type is not None:
            getattr(shell, field.name).CopyFrom(value)
        else:
            setattr(shell, field.name, value)
    shell.graph.CopyFrom(_graph_shell(model.graph))
    return shell


def _graph_shell(graph: onnx.GraphProto) -> onnx.GraphProto:
    shell = onnx.GraphProto()
    for field in ("name", "doc_string"):
        if graph.HasField(field):
            setattr(shell, field, getattr(graph, field))
    shell.input.extend(graph.input)
    shell.output.extend(graph.output)
    shell.value_info.extend(graph.value_info)
    shell.quantization_annotation.extend(graph.quantization_annotation)
    shell.metadata_props.extend(graph.metadata_props)
    shell.sparse_initializer.extend(graph.sparse_initializer)
    return shell


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _all_nodes(attribute.g)


def _carried(attribute: onnx.AttributeProto) -> bool:
    if attribute.type not in _CARRIED:
        return False
    try:
        for text in (attribute.s, *attribute.strings):
            text.decode()
    except UnicodeDecodeError:  # binary blobs of custom operators
        return False
    return True


def _take_uncarried(node: onnx.NodeProto) -> list[onnx.AttributeProto]:
    kept = []
    for index in reversed(range(len(node.attribute))):
        if not _carried(node.attribute[index]):
            kept.append(onnx.AttributeProto.FromString(node.attribute[index].SerializeToString()))
            del node.attribute[index]
    return kept[::-1]


def _attach_origins(ir: gs.Graph, proto: onnx.GraphProto, uncarried: dict[int, list[onnx.AttributeProto]]) -> None:
    for node, source in zip(ir.nodes, proto.node, strict=True):
        node.__dict__["origin"] = Origin(source, node.attrs, uncarried.get(id(source), []))
        for attribute in source.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _attach_origins(node.attrs[attribute.name], attribute.g, uncarried)
    used = {c.name: c for c in constants(ir) if "owner" not in c.__dict__}
    unused = []
    for tensor in proto.initializer:
        if tensor.name in used:
            used[tensor.name].__dict__["owner"] = ir
        else:
            unused.append(gs.Constant(tensor.name, LazyValues(tensor)))
    ir.__dict__["origin"] = _graph_shell(proto)
    ir.__dict__["unused"] = unused
    ir.__dict__["order"] = {t.name: i for i, t in enumerate(proto.initializer)}


def producers(node: gs.Node) -> Iterator[gs.Node]:
    """Nodes whose outputs a node reads, itself or inside its nested graphs."""
    for tensor in node.inputs:
        yield from tensor.inputs
    for value in node.attrs.values():
        if isinstance(value, gs.Graph):
            for inner in walk(value):
                for tensor in inner.inputs:
                    yield from tensor.inputs


def copy_graph(ir: gs.Graph) -> gs.Graph:
    """Copy of a graph that shares the weights with the original.

    (graphsurgeon's own copy gives each nested graph a constant of its own where several read one.)
    """
    return _copy_graph(ir, {})


def _copy_graph(ir: gs.Graph, made: dict[int, gs.Tensor]) -> gs.Graph:
    """Copy one level; `made` holds the copy of each tensor met so far, by the original's identity."""
    nodes = [_copy_node(node, made) for node in ir.nodes]
    inputs, outputs = ([_copy_tensor(t, made) for t in ends] for ends in (ir.inputs, ir.outputs))
    copy = gs.Graph(nodes, inputs, outputs, name=ir.name, opset=ir.opset)
    for constant in constants(ir):
        if constant.__dict__.get("owner") is ir:
            made[id(constant)].__dict__["owner"] = copy
    for key in ("origin", "order"):
        if key in ir.__dict__:
            copy.__dict__[key] = ir.__dict__[key]
    copy.__dict__["unused"] = list(ir.__dict__.get("unused", []))
    return copy


def _copy_node(node: gs.Node, made: dict[int, gs.Tensor]) -> gs.Node:
    attrs = {k: _copy_graph(v, made) if isinstance(v, gs.Graph) else v for k, v in node.attrs.items()}
    inputs, outputs = ([_copy_tensor(t, made) for t in ends] for ends in (node.inputs, node.outputs))
    copy = gs.Node(node.op, node.name, attrs, inputs, outputs, node.domain)
    if "origin" in node.__dict__:
        copy.__dict__["origin"] = node.__dict__["origin"]
    return copy


def _copy_tensor(tensor: gs.Tensor, made: dict[int, gs.Tensor]) -> gs.Tensor:
    if not tensor.name:
        return gs.Variable.empty()
    if id(tensor) not in made:
        made[id(tensor)] = tensor.copy()
    return made[id(tensor)]


def walk(ir: gs.Graph) -> Iterator[gs.Node]:
    """All nodes, those of nested graphs included."""
    for node in ir.nodes:
        yield node
        for value in node.attrs.values():
            if isinstance(value, gs.Graph):
                yield from walk(value)


def constants(ir: gs.Graph) -> Iterator[gs.Constant]:
    """Initializers in order of first use, each once, those of nested graphs included."""
    seen: set[int] = set()
    tensors: Iterable[gs.Tensor] = [t for node in walk(ir) for t in node.inputs] + list(ir.outputs)
    for tensor in tensors:
        if isinstance(tensor, gs.Constant) and id(tensor) not in seen:
            seen.add(id(tensor))
            yield tensor


def export_model(ir: gs.Graph, shell: onnx.ModelProto, *, weights: bool = True) -> onnx.ModelProto:
    """Write a graph back into a protobuf model.

    Args:
        ir: The graph.
        shell: What `import_model` kept beside it.
        weights: False leaves large initializers without data, for shape inference on models of any size.
    """
    model = onnx.ModelProto()
    model.CopyFrom(shell)
    _fill_graph(model.graph, ir, top=ir, weights=weights)
    return model


def _fill_graph(proto: onnx.GraphProto, ir: gs.Graph, *, top: gs.Graph, weights: bool) -> None:
    used = [c for c in constants(ir) if c.__dict__.get("owner", top) is ir]
    order: dict[str, int] = ir.__dict__.get("order", {})
    owned = sorted([*used, *ir.__dict__.get("unused", [])], key=lambda c: order.get(c.name, len(order)))
    proto.node.extend(_node_proto(node, top=top, weights=weights) for node in ir.nodes)
    sparse = {s.values.name for s in proto.sparse_initializer}
    proto.initializer.extend(tensor_proto(c, weights=weights) for c in owned if c.name not in sparse)
    named = {c.name: c for c in owned}
    overridable = [_default_info(v, named[v.name]) for v in proto.input if v.name in named]
    _replace(
        proto.input,
        [*_value_infos(ir.inputs, proto.input), *overridable],
        order=[v.name for v in proto.input],
    )
    _replace(proto.output, _value_infos(ir.outputs, proto.output))
    listed = {v.name for v in proto.value_info}
    ends = {t.name: t for t in [*ir.inputs, *ir.outputs, *owned]}
    inner = {t.name: t for node in ir.nodes for t in node.outputs if t.name and t.name not in ends}
    inner |= {name: t for name, t in ends.items() if name in listed}
    typed = [t for t in inner.values() if t.dtype is not None and t.shape is not None]
    _replace(proto.value_info, _value_infos(typed, proto.value_info), order=[v.name for v in proto.value_info])


def _replace(field: Any, values: list[onnx.ValueInfoProto], order: list[str] | None = None) -> None:
    if order:
        rank = {name: i for i, name in enumerate(order)}
        values = sorted(values, key=lambda v: rank.get(v.name, len(rank)))
    copies = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in values]
    del field[:]
    field.extend(copies)


def _value_infos(tensors: Iterable[gs.Tensor], originals: Iterable[onnx.ValueInfoProto]) -> list[onnx.ValueInfoProto]:
    """One value info per tensor: the original where type and shape still hold, else a new one."""
    before = {v.name: v for v in originals}
    out = []
    for tensor in tensors:
        original = before.get(tensor.name)
        if original is not None and _same_type(original, tensor):
            out.append(original)
        elif tensor.dtype is None:
            out.append(helper.make_empty_tensor_value_info(tensor.name))
        else:
            shape = None if tensor.shape is None else list(tensor.shape)
            out.append(helper.make_tensor_value_info(tensor.name, onnx_dtype(tensor.dtype), shape))
    return out


def _default_info(info: onnx.ValueInfoProto, constant: gs.Constant) -> onnx.ValueInfoProto:
    """The input that an initializer is the default of: as it was, unless the initializer is another size now."""
    dims, shape = info.type.tensor_type.shape.dim, list(constant.shape or ())
    fits = len(dims) == len(shape) and all(
        not d.HasField("dim_value") or d.dim_value == size for d, size in zip(dims, shape, strict=True)
    )
    if fits or not info.type.tensor_type.HasField("shape"):
        return info
    return helper.make_tensor_value_info(info.name, onnx_dtype(constant.dtype), shape)


def _same_type(info: onnx.ValueInfoProto, tensor: gs.Tensor) -> bool:
    if not info.type.HasField("tensor_type"):
        return True  # sequences, maps, optionals: passes do not touch them
    kind = info.type.tensor_type
    if tensor.dtype is None or kind.elem_type != onnx_dtype(tensor.dtype):
        return tensor.dtype is None and kind.elem_type == 0
    if not kind.HasField("shape") or tensor.shape is None:
        return not kind.HasField("shape") and tensor.shape is None
    dims = [
        d.dim_param if d.HasField("dim_param") else d.dim_value if d.HasField("dim_value") else None
        for d in kind.shape.dim
    ]
    return dims == list(tensor.shape)


def onnx_dtype(dtype: Any) -> int:
    """ONNX's data type enum for a numpy dtype, or the enum itself."""
    return dtype if isinstance(dtype, int) else helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def _node_proto(node: gs.Node, *, top: gs.Graph, weights: bool) -> onnx.NodeProto:
    origin: Origin | None = node.__dict__.get("origin")
    proto = onnx.NodeProto()
    if origin is not None:
        proto.CopyFrom(origin.node)
    proto.op_type = node.op
    if node.name or origin is None:
        proto.name = node.name
    if (node.domain or "") != proto.domain:
        proto.domain = node.domain or ""
    proto.input.extend(t.name for t in node.inputs)
    proto.output.extend(t.name for t in node.outputs)
    for name, value in node.attrs.items():
        proto.attribute.append(_attribute_proto(name, value, origin, top=top, weights=weights))
    if origin is not None:
        proto.attribute.extend(origin.uncarried)
    return proto


def _attribute_proto(
    name: str, value: Any, origin: Origin | None, *, top: gs.Graph, weights: bool
) -> onnx.AttributeProto:
    if isinstance(value, gs.Graph):
        attribute = onnx.AttributeProto(name=name, type=onnx.AttributeProto.GRAPH)
        attribute.g.CopyFrom(value.__dict__.get("origin", onnx.GraphProto(name=value.name)))
        _fill_graph(attribute.g, value, top=top, weights=weights)
        return attribute
    if origin is not None and name in origin.attributes:
        written: onnx.AttributeProto
        written, read = origin.attributes[name]
        if value is read or (not isinstance(value, gs.Tensor) and type(value) is type(read) and value == read):
            return written
    if isinstance(value, gs.Constant):
        return helper.make_attribute(name, tensor_proto(value, weights=True))
    if isinstance(value, list) and not value:
        return helper.make_attribute(name, value, attr_type=onnx.AttributeProto.INTS)
    return helper.make_attribute(name, value)


LARGE = 1024  # bytes; shape arithmetic never needs constants above this


def tensor_proto(constant: gs.Constant, *, weights: bool) -> onnx.TensorProto:
    """Protobuf of an initializer. With `weights=False` a large one keeps type and shape and loses its data."""
    values = constant._values  # noqa: SLF001  (reading `.values` would load it)
    if not weights and values.nbytes > LARGE:
        data_type = values.tensor.data_type if isinstance(values, LazyValues) else onnx_dtype(values.dtype)
        stripped = onnx.TensorProto(name=constant.name, data_type=data_type, dims=values.shape)
        stripped.data_location = onnx.TensorProto.EXTERNAL
        return stripped
    if not isinstance(values, LazyValues):
        return numpy_helper.from_array(np.ascontiguousarray(values) if values.ndim else values, constant.name)
    proto = values.tensor
    if proto.name != constant.name:
        proto = onnx.TensorProto.FromString(proto.SerializeToString())
        proto.name = constant.name
    return proto

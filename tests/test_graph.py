"""Nothing of a model is lost between file and graph; edits keep names, weights and order right."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from onnxopt import Constant, Graph, Variable
from onnxopt.graph import is_standard, label
from onnxopt.testing import outputs_of, parse_graph, random_feeds


def proto(text):
    """Model from the syntax of `onnx.parser`, header included."""
    return parser.parse_model(text)


def returned(model, *, copied=False):
    """The model after import and export."""
    graph = Graph.from_proto(onnx.ModelProto.FromString(model.SerializeToString()))
    return (graph.copy() if copied else graph).to_proto()


def unchanged(model):
    """Import and export give the same file, from the graph and from a copy of it."""
    wanted = model.SerializeToString(deterministic=True)
    assert returned(model).SerializeToString(deterministic=True) == wanted
    assert returned(model, copied=True).SerializeToString(deterministic=True) == wanted


HEADER = '<ir_version: 8, opset_import: ["": 17]>'
PLAIN = f"{HEADER} g (float[2] x) => (float[2] y) {{ y = Relu (x) }}"


def test_metadata_doc_strings_and_producer_are_kept():
    model = proto(PLAIN)
    helper.set_model_props(model, {"names": "{0: 'cat'}", "stride": "32"})
    model.doc_string, model.producer_name, model.producer_version = "a model", "exporter", "1.2"
    model.domain, model.model_version = "own", 7
    model.graph.doc_string = "a graph"
    model.graph.node[0].doc_string = "a node"
    model.graph.input[0].doc_string = "an input"
    model.graph.output[0].doc_string = "an output"
    entry = model.graph.node[0].metadata_props.add()
    entry.key, entry.value = "scope", "/backbone"
    unchanged(model)


def test_quantization_notes_training_and_configurations_are_kept():
    model = proto(PLAIN)
    note = model.graph.quantization_annotation.add(tensor_name="y")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="s")
    model.training_info.add().initialization.CopyFrom(helper.make_graph([], "start", [], []))
    model.configuration.add(name="devices", num_devices=2)
    entry = model.graph.metadata_props.add()
    entry.key, entry.value = "graph", "kept"
    unchanged(model)


def test_opset_imports_and_operators_of_other_domains_are_kept():
    unchanged(
        proto(
            """<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1, "own.ops": 3]> g (float[2] x) => (float[2] y)
            { a = com.microsoft.QuickGelu <alpha = 1.0> (x)  y = own.ops.Thing <mode = "fast"> (a) }"""
        )
    )


def test_local_functions_are_kept():
    unchanged(
        proto(
            """<ir_version: 8, opset_import: ["": 17, "own": 1]> g (float[2] x) => (float[2] y) { y = own.twice (x) }
            <domain: "own", opset_import: ["": 17]> twice (a) => (b)
            { c = Constant <value = float {2.0}> ()  b = Mul (a, c) }"""
        )
    )


NESTED = f"""{HEADER} g (float[2] x, bool b) => (float[2] y) <float[2] w = {{1, 2}}, float[2] v = {{3, 4}}> {{
    a = Mul (x, w)
    y = If (b) <
        then_branch = t () => (float[2] out) <float[2] k = {{1, 1}}> {{ inner = Add (a, k)  out = Mul (inner, v) }},
        else_branch = e () => (float[2] out) <float[2] k = {{2, 2}}> {{ inner = Sub (a, k)  out = Mul (inner, v) }}
    >
}}"""


def test_branches_with_equal_names_keep_their_own_weights():
    unchanged(proto(NESTED))


def test_copy_of_branches_computes_the_same():
    graph = parse_graph(NESTED)
    for flag in (True, False):
        feeds = {"x": np.array([1, -2], np.float32), "b": np.array(flag)}
        wanted, got = outputs_of(graph, feeds), outputs_of(graph.copy(), feeds)
        np.testing.assert_array_equal(wanted["y"], got["y"])


def test_loop_with_state_is_kept():
    unchanged(
        proto(
            f"""{HEADER} g (float[2] x, int64 n) => (float[2] y) <bool go = {{1}}, float[2] w = {{1, 2}}> {{
                y = Loop (n, go, x) <body = b (int64 i, bool c, float[2] s) => (bool d, float[2] t)
                    {{ d = Identity (c)  t = Add (s, w) }}> }}"""
        )
    )


def test_nested_graph_within_a_nested_graph():
    model = proto(
        f"""{HEADER} g (float[2] x, bool b) => (float[2] y) <float[2] w = {{1, 2}}> {{
            y = If (b) <
                then_branch = t () => (float[2] p) {{
                    p = If (b) <then_branch = tt () => (float[2] q) {{ q = Mul (x, w) }},
                                else_branch = te () => (float[2] q) {{ q = Add (x, w) }}> }},
                else_branch = e () => (float[2] p) {{ p = Sub (x, w) }}> }}"""
    )
    unchanged(model)
    graph = Graph.from_proto(model)
    assert len(list(graph.walk())) == 5
    assert [c.name for c in graph.initializers()] == ["w"]


def test_unused_initializers_are_kept():
    model = proto(f"{HEADER} g (float[2] x) => (float[2] y) <float[3] spare = {{1, 2, 3}}> {{ y = Relu (x) }}")
    unchanged(model)
    graph = Graph.from_proto(model)
    assert [c.name for c in graph.unused_initializers] == ["spare"]
    copy = graph.copy()
    copy.unused_initializers.clear()
    assert len(graph.to_proto().graph.initializer) == 1


def test_initializers_keep_their_order_and_their_way_of_storing():
    model = proto(f"{HEADER} g (float[2] x) => (float[2] y) {{ a = Mul (x, v)  y = Add (a, w) }}")
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([3, 4], np.float32), "v"))
    model.graph.initializer[0].doc_string = "bias"
    unchanged(model)


@pytest.mark.parametrize("version", [3, 8])
def test_initializers_that_are_inputs_too_are_kept(version):
    model = proto(
        f"""<ir_version: {version}, opset_import: ["": 9]> g (float[2] x, float[2] w = {{1, 2}}) => (float[2] y)
        {{ y = Add (x, w) }}"""
    )
    unchanged(model)
    graph = Graph.from_proto(model)
    assert [t.name for t in graph.inputs] == ["x"]
    assert graph.overridable == ([] if version == 3 else ["w"])
    [weight] = graph.initializers()
    assert (graph.constant(weight) is None) == (version == 8)


def test_new_initializers_of_an_old_file_are_listed_as_inputs():
    graph = parse_graph('<ir_version: 3, opset_import: ["": 9]> g (float[2] x) => (float[2] y) { y = Relu (x) }')
    node = graph.nodes[0]
    graph.add_node("Mul", [node.outputs[0], np.ones(2, np.float32)], outputs=[Variable("z", np.float32, [2])])
    graph.outputs[0] = graph.nodes[-1].outputs[0]
    model = graph.to_proto()
    onnx.checker.check_model(model, full_check=True)
    assert [v.name for v in model.graph.input] == ["x", "Mul_const"]


def test_a_resized_initializer_is_listed_as_an_input_of_its_new_size():
    graph = parse_graph("(float[2,3] x) => (float[2,4] y) <float[3,4] w> { y = MatMul (x, w) }")
    model = graph.to_proto()
    model.ir_version = 3
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 4]))
    graph = Graph.from_proto(model)
    constant = graph.initializers()[0]
    constant.values = constant.values[:, :2]
    sizes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in graph.to_proto().graph.input}
    assert sizes == {"x": [2, 3], "w": [3, 2]}


def test_frozen_weights_cannot_be_written_into():
    graph = parse_graph("(float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Add (x, w) }")
    mine = graph.initializers()[0].values
    graph.freeze()
    with pytest.raises(ValueError, match="read-only"):
        graph.copy().initializers()[0].values[0] = 3
    mine[0] = 3


def test_raising_the_format_turns_listed_initializers_into_constants():
    graph = parse_graph(
        """<ir_version: 3, opset_import: ["": 9]> g (float[2] x, float[2] w = {1, 2}) => (float[2] y)
        { y = Add (x, w) }"""
    )
    graph.set_ir_version(7)
    assert [v.name for v in graph.to_proto().graph.input] == ["x"]
    assert graph.constant(graph.initializers()[0]) is not None


def test_attributes_of_every_type_are_kept():
    inner = helper.make_graph([], "inner", [], [])
    tensor = numpy_helper.from_array(np.arange(3, dtype=np.int8), "t")
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, ["n", 3])
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.array([1.0], np.float32), "s"), numpy_helper.from_array(np.array([2]), "i"), [4]
    )
    values = {
        "float": 0.1,
        "int": -(2**40),
        "text": "näher",
        "bytes": b"\xff\x00\x80",
        "tensor": tensor,
        "type": kind,
        "sparse": sparse,
        "floats": [0.1, float("inf")],
        "ints": [1, 2],
        "texts": ["a", "b"],
        "byte_list": [b"\xfe", b"\xff"],
        "types": [kind, kind],
    }
    node = helper.make_node("Thing", ["x"], ["y"], domain="own", **values)
    for name, wanted in [
        ("no_ints", onnx.AttributeProto.INTS),
        ("no_floats", onnx.AttributeProto.FLOATS),
        ("no_texts", onnx.AttributeProto.STRINGS),
        ("tensors", onnx.AttributeProto.TENSORS),
        ("graphs", onnx.AttributeProto.GRAPHS),
    ]:
        node.attribute.append(onnx.AttributeProto(name=name, type=wanted))
    node.attribute[-1].graphs.append(inner)
    node.attribute[-2].tensors.append(tensor)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("own", 1)])
    kept = returned(model).graph.node[0]
    # Attributes of types that graphsurgeon lacks come last; a node's attributes have no order in ONNX.
    assert {a.name: a.SerializeToString(deterministic=True) for a in kept.attribute} == {
        a.name: a.SerializeToString(deterministic=True) for a in node.attribute
    }


def test_edited_attribute_is_written_and_the_others_stay():
    model = proto(f"{HEADER} g (float[2] x) => (float[2] y) {{ y = Selu <alpha = 0.1, gamma = 0.7> (x) }}")
    wanted = model.graph.node[0].attribute[1].SerializeToString(deterministic=True)
    graph = Graph.from_proto(model)
    graph.nodes[0].attrs["alpha"] = 0.5
    alpha, gamma = graph.to_proto().graph.node[0].attribute
    assert alpha.f == 0.5
    assert gamma.SerializeToString(deterministic=True) == wanted


def test_names_of_dynamic_dimensions_are_kept():
    model = proto(
        f"{HEADER} g (float[batch,3,h,w] x) => (float[batch,3,h,w] y) <float[batch,3,h,w] a>"
        "{ a = Relu (x)  y = Neg (a) }"
    )
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[3].ClearField("dim_param")  # not even a name
    dims[2].dim_value = -1  # what some exporters write
    dims[0].denotation = "DATA_BATCH"
    unchanged(model)


def test_recorded_shapes_go_only_when_asked_for():
    graph = parse_graph(f"{HEADER} g (float[2] x) => (float[2] y) <float[2] a> {{ a = Relu (x)  y = Neg (a) }}")
    assert [v.name for v in graph.to_proto().graph.value_info] == ["a"]
    graph.forget_shapes()
    assert not graph.to_proto().graph.value_info
    assert len(graph.to_proto().graph.output[0].type.tensor_type.shape.dim) == 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["BFLOAT16", "FLOAT8E4M3FN", "INT4", "UINT4", "FLOAT16", "BOOL", "COMPLEX64"])
def test_weights_of_every_type_are_kept(kind):
    number = getattr(TensorProto, kind)
    weight = helper.make_tensor("w", number, [3], [1, 0, 1])
    ends = [helper.make_tensor_value_info(name, number, [3]) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Concat", ["x", "w"], ["y"], axis=0)], "g", ends[:1], ends[1:], [weight]
    )
    unchanged(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]))


def test_text_weights_are_kept():
    weight = helper.make_tensor("w", TensorProto.STRING, [2], [b"a", b"b"])
    ends = [helper.make_tensor_value_info(name, TensorProto.STRING, [None]) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Concat", ["x", "w"], ["y"], axis=0)], "g", ends[:1], ends[1:], [weight]
    )
    unchanged(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


def test_sparse_initializers_are_kept():
    model = proto(f"{HEADER} g (float[4] x) => (float[4] y) {{ y = Add (x, w) }}")
    values, places = np.array([1.0, 2.0], np.float32), np.array([0, 3])
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(numpy_helper.from_array(values, "w"), numpy_helper.from_array(places, "w_i"), [4])
    )
    unchanged(model)


def test_nodes_without_names_and_omitted_inputs_are_kept():
    model = proto(f"{HEADER} g (float[2] x, float m) => (float[2] y) {{ a = Clip (x, , m)  y = Relu (a) }}")
    for node in model.graph.node:
        node.ClearField("name")
    unchanged(model)


def test_export_without_weights_keeps_types_and_shapes():
    graph = parse_graph(
        "(float[1,300] x) => (float[1,300] y) <float[300,300] w, int64[1] k = {3}> { y = MatMul (x, w) }"
    )
    [large] = [t for t in graph.to_proto(weights=False).graph.initializer if t.name == "w"]
    assert (list(large.dims), large.data_type, large.raw_data) == ([300, 300], TensorProto.FLOAT, b"")


def test_digest_is_that_of_the_file():
    first, second = parse_graph(PLAIN), parse_graph(PLAIN)
    assert first.digest() == second.digest() == first.copy().digest()
    second.set_metadata("key", "value")
    assert first.digest() != second.digest()


def test_copies_share_no_structure():
    graph = parse_graph("(float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Mul (x, w) }")
    before = graph.digest()
    copy = graph.copy()
    copy.set_metadata("a", "b")
    copy.set_opset("own", 2)
    copy.nodes[0].attrs["new"] = 1
    copy.initializers()[0].values = np.zeros(2, np.float32)
    copy.remove(copy.nodes[0])
    assert graph.digest() == before


def test_metadata_is_set_and_replaced():
    graph = parse_graph(PLAIN)
    graph.set_metadata("stride", "16")
    graph.set_metadata("stride", "32")
    assert graph.metadata == {"stride": "32"}


def test_opset_under_its_long_name():
    graph = Graph.from_proto(proto(PLAIN.replace('["": 17]', '["ai.onnx": 17]')))
    assert graph.opset == 17
    graph.set_opset("", 18)
    assert graph.opsets == {"": 18}


def test_constant_sees_through_constant_nodes_and_identities():
    graph = parse_graph(
        "(float[2] x) => (float[2] y) { c = Constant <value_float = 2.0> ()  i = Identity (c)  y = Mul (x, i) }"
    )
    [mul] = graph.nodes_of("Mul")
    value = graph.constant(mul.inputs[1])
    assert value is not None
    assert (value.dtype, float(value)) == (np.float32, 2.0)
    assert graph.constant(mul.inputs[0]) is None


def test_own_constant_leaves_other_readers_theirs():
    graph = parse_graph("(float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Mul (x, w)  y = Add (a, w) }")
    mul, add = graph.nodes
    own = graph.own_constant(mul, 1)
    own.values = np.zeros(2, np.float32)
    assert own.name != "w"
    np.testing.assert_array_equal(graph.constant(add.inputs[1]), [1, 2])
    assert graph.own_constant(add, 1).name == "w"
    with pytest.raises(ValueError, match="input 0 of Mul 'a' is no constant"):
        graph.own_constant(mul, 0)


def test_own_constant_of_a_constant_node_is_an_initializer():
    graph = parse_graph("(float[2] x) => (float[2] y) { c = Constant <value_floats = [1.0, 2.0]> ()  y = Mul (x, c) }")
    [mul] = graph.nodes_of("Mul")
    assert isinstance(graph.own_constant(mul, 1), Constant)
    assert mul.inputs[1].inputs == []


def test_unique_names_avoid_every_name_there_is():
    graph = parse_graph(NESTED)
    for taken in ("x", "y", "a", "w", "inner", "k", "out"):
        assert graph.unique_name(taken) == f"{taken}_1"
    assert [graph.unique_name("new") for _ in range(3)] == ["new", "new_1", "new_2"]


def test_nodes_are_put_in_order_of_execution_and_otherwise_left():
    graph = parse_graph("(float[2] x) => (float[2] y) { a = Neg (x)  b = Relu (x)  y = Add (a, b) }")
    a, b, y = graph.nodes
    graph.sort()
    assert [id(n) for n in graph.nodes] == [id(a), id(b), id(y)]
    graph.nodes[:] = [y, b, a]
    graph.sort()
    assert [n.op for n in graph.nodes] == ["Neg", "Relu", "Add"]


def test_node_is_put_before_what_a_nested_graph_reads():
    graph = parse_graph(NESTED)
    graph.nodes[:] = graph.nodes[::-1]
    graph.sort()
    assert [n.op for n in graph.nodes] == ["Mul", "If"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a = Relu (x)  b = Identity (a)  y = Neg (b)", ["a = Relu(x)", "y = Neg(a)"]),
        ("a = Relu (x)  y = Identity (a)", ["y = Relu(x)"]),
        ("a = Relu (x)  y = Identity (a)  z = Neg (a)", ["y = Relu(x)", "z = Neg(y)"]),
        ("y = Identity (x)", None),
    ],
)
def test_bypass_keeps_names_of_outputs(before, after):
    outputs = "float[2] y, float[2] z" if "z" in before else "float[2] y"
    graph = parse_graph(f"(float[2] x) => ({outputs}) {{ {before} }}")
    [node] = graph.nodes_of("Identity")
    assert graph.bypass(node, node.inputs[0]) == (after is not None)
    if after is not None:
        assert [f"{n.outputs[0].name} = {n.op}({n.inputs[0].name})" for n in graph.nodes] == after
        onnx.checker.check_model(graph.to_proto(), full_check=True)


def test_bypass_between_two_outputs_is_refused():
    graph = parse_graph("(float[2] x) => (float[2] y, float[2] z) { y = Relu (x)  z = Identity (y) }")
    [node] = graph.nodes_of("Identity")
    assert not graph.bypass(node, node.inputs[0])
    assert len(graph.nodes) == 2


def test_consumers_inside_nested_graphs_count_and_are_rewired():
    graph = parse_graph(NESTED)
    [mul] = [n for n in graph.nodes if n.op == "Mul"]
    assert [n.op for n in graph.consumers(mul.outputs[0])] == ["Add", "Sub"]
    graph.replace_uses(mul.outputs[0], graph.inputs[0])
    assert not graph.consumers(mul.outputs[0])
    assert {t.name for n in graph.walk() if n.op in {"Add", "Sub"} for t in n.inputs} == {"x", "k"}


def test_added_nodes_get_names_of_their_own():
    graph = parse_graph("(float[2] x) => (float[2] y) { y = Relu (x) }")
    relu = graph.nodes[0]
    mul = graph.add_node("Mul", [graph.inputs[0], np.full(2, 3, np.float32)], name="scale", before=relu)
    clip = graph.add_node("Clip", [mul.outputs[0], None, np.float32(6)])
    relu.inputs[0] = clip.outputs[0]
    assert graph.nodes[0].name == "scale"
    model = graph.to_proto()
    onnx.checker.check_model(model, full_check=True)
    assert list(model.graph.node[1].input) == ["scale_output", "", "Clip_const"]
    np.testing.assert_array_equal(outputs_of(graph, {"x": np.array([1, 9], np.float32)})["y"], [3, 6])


def test_settling_makes_the_order_of_readers_that_of_the_nodes():
    graph = parse_graph("(float[2] x) => (float[2] y) { a = Neg (x)  b = Relu (x)  y = Add (a, b) }")
    x = graph.inputs[0]
    graph.nodes[0].inputs[0] = graph.nodes[0].outputs[0]
    graph.nodes[0].inputs[0] = x
    assert [n.op for n in graph.consumers(x)] == ["Relu", "Neg"]
    graph.settle()
    assert [n.op for n in graph.consumers(x)] == ["Neg", "Relu"]


def test_labels_name_nodes_that_have_no_name():
    graph = parse_graph("(float[2] x) => (float[2] y) { y = Relu (x) }")
    assert label(graph.nodes[0]) == "Relu 'y'"
    graph.nodes[0].name = "act"
    assert label(graph.nodes[0]) == "Relu 'act'"
    assert is_standard(graph.nodes[0])
    graph.nodes[0].domain = "own"
    assert not is_standard(graph.nodes[0])


def test_reading_weights_does_not_change_what_is_computed():
    graph = parse_graph("(float[1,4] x) => (float[1,4] y) <float[4,4] w> { y = MatMul (x, w) }")
    feeds = random_feeds(graph)
    before = outputs_of(graph, feeds)["y"]
    for constant in graph.initializers():
        assert constant.values.shape == (4, 4)
    np.testing.assert_array_equal(outputs_of(graph, feeds)["y"], before)

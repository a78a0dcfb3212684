"""Files that cannot be used are refused with one sentence that names the file and what is wrong in it."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxopt import UsageError, load

FLOAT = onnx.TensorProto.FLOAT


def net():
    """x -> Conv c1 -> Relu r1 -> Conv c2 -> y."""
    weights = [numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), name) for name in ("w1", "w2")]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="c1"),
        helper.make_node("Relu", ["a"], ["b"], name="r1"),
        helper.make_node("Conv", ["b", "w2"], ["y"], name="c2"),
    ]
    ends = [[helper.make_tensor_value_info(name, FLOAT, [1, 3, 4, 4])] for name in ("x", "y")]
    graph = helper.make_graph(nodes, "net", *ends, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def refused(model, tmp_path):
    file = tmp_path / "m.onnx"
    file.write_bytes(model.SerializeToString())
    with pytest.raises(UsageError) as caught:
        load(file)
    message = str(caught.value)
    assert "\n" not in message
    assert "m.onnx" in message
    return message


def test_what_is_whole_loads_in_any_order_of_nodes(tmp_path):
    model = net()
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in reversed(model.graph.node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, tmp_path / "m.onnx")
    assert [n.name for n in load(tmp_path / "m.onnx").nodes] == ["c2", "r1", "c1"]


def test_a_circle_of_nodes(tmp_path):
    model = net()
    model.graph.node[0].input[0] = "b"
    assert "depends on its own output" in refused(model, tmp_path)


def test_a_circle_through_a_nested_graph(tmp_path):
    model = net()
    branch = helper.make_graph(
        [helper.make_node("Neg", ["y"], ["t"])], "g", [], [helper.make_tensor_value_info("t", FLOAT, None)]
    )
    fork = helper.make_node("If", ["c"], ["b"], name="fork", then_branch=branch, else_branch=branch)
    model.graph.node[1].CopyFrom(fork)
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
    assert "depends on its own output" in refused(model, tmp_path)


def test_two_producers_of_one_name(tmp_path):
    model = net()
    model.graph.node.add().CopyFrom(helper.make_node("Relu", ["x"], ["b"]))
    assert "'b' is produced by more than one node" in refused(model, tmp_path)


def test_an_operator_set_without_version(tmp_path):
    model = net()
    model.graph.node[1].domain = "acme"
    assert "Relu 'r1' is of operator set 'acme'" in refused(model, tmp_path)


def test_no_operator_set_at_all(tmp_path):
    model = net()
    del model.opset_import[:]
    assert "operator set" in refused(model, tmp_path)


def test_a_newer_ir_version(tmp_path):
    model = net()
    model.ir_version = 99
    assert "IR version 99 is not supported" in refused(model, tmp_path)


@pytest.mark.parametrize("dim", [4, -1])
def test_a_tensor_whose_size_does_not_fit_its_shape(tmp_path, dim):
    model = net()
    model.graph.initializer[1].dims[0] = dim
    assert "tensor 'w2'" in refused(model, tmp_path)


@pytest.mark.parametrize("offset", ["-5", "abc"])
def test_external_data_at_no_place(tmp_path, offset):
    model = net()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": "w.data", "offset": offset}.items():
        tensor.external_data.add(key=key, value=value)
    (tmp_path / "w.data").write_bytes(b"\0" * 36)
    assert "external data of tensor 'w1'" in refused(model, tmp_path)


def test_a_device_is_not_read():
    with pytest.raises(UsageError, match="device"):
        load("/dev/zero")

"""`onnxopt profile`, as typed."""

import json
import sys


def test_table_and_summary(onnxopt, net):
    result = onnxopt("profile", net, "--runs", 4, "--input-shape", "image:1x3x8x8")
    assert result.exit_code == 0, result.output
    assert "Conv_0" in result.stdout
    assert " in int8; " in result.stdout


def test_json(onnxopt, net):
    result = onnxopt("profile", net, "--runs", 4, "--input-shape", "image:1x3x8x8", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    names = [layer["name"] for layer in found["layers"]]
    assert {"Conv_0", "Conv_2", "Gemm_6"} <= set(names)
    assert found["model"] == "net.onnx"


def test_a_target_without_a_runtime_is_one_sentence(onnxopt, net):
    result = onnxopt("profile", net, "--target", "tensorrt")
    assert result.exit_code == 2
    assert "cannot run on this machine" in result.stderr


def test_a_reference_of_another_model_is_one_sentence(onnxopt, net, net_text, store):
    shape = ("--input-shape", "image:1x3x8x8")
    other = "(float[1,4] v) => (float[1,5] scores) <float[4,5] w> { scores = Gemm (v, w) }"
    result = onnxopt("profile", net, "--runs", 4, *shape, "--reference", store("other.onnx", other))
    assert result.exit_code == 2
    assert "the reference shares no layer with the model" in result.stderr
    same = onnxopt("profile", net, "--runs", 4, *shape, "--reference", store("same.onnx", net_text))
    assert same.exit_code == 0, same.output


def test_names_of_nodes_do_not_steer_the_terminal(onnxopt, net):
    from onnxopt.model_io import load, save

    graph = load(net)
    graph.name_nodes()
    for node in graph.nodes:
        node.name += "\x1b[31m\n"
    save(graph, net)
    result = onnxopt("profile", net, "--runs", 4, "--input-shape", "image:1x3x8x8")
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.stdout
    assert "Conv_0?[31m?" in result.stdout


def test_what_is_not_installed_says_how(onnxopt, net, monkeypatch):
    monkeypatch.delitem(sys.modules, "onnxopt.runtime.openvino", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not there: importing it fails
    result = onnxopt("profile", net, "--target", "openvino", "--input-shape", "image:1x3x8x8")
    assert result.exit_code == 2
    assert "pip install 'onnxopt[openvino]'" in result.stderr

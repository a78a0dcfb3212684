"""`onnxopt profile`, as typed."""

import json


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

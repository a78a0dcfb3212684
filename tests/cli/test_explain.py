"""`onnxopt explain`."""

import json

import pytest

from onnxopt.cli.main import main
from onnxopt.registry import load_target

S8 = """(float[N,16,8,8] x) => (float[N,16,H,W] y) <
    float s = {0.1}, int8 z = {0}, float ws = {0.05}, int8[16,16,3,3] w1, int8[16,16,1,1] w2
> {
    x_q = QuantizeLinear (x, s, z)  x_d = DequantizeLinear (x_q, s, z)
    w1_d = DequantizeLinear (w1, ws, z)
    a = Conv <pads = [1, 1, 1, 1]> (x_d, w1_d)
    a_q = QuantizeLinear (a, s, z)  a_d = DequantizeLinear (a_q, s, z)
    b = Sigmoid (a_d)
    c = Mul (a_d, b)
    c_q = QuantizeLinear (c, s, z)  c_d = DequantizeLinear (c_q, s, z)
    w2_d = DequantizeLinear (w2, ws, z)
    d = Conv (c_d, w2_d)
    d_q = QuantizeLinear (d, s, z)  d_d = DequantizeLinear (d_q, s, z)
    y = Sigmoid (d_d)
}"""


@pytest.fixture
def signed(store):
    return store("signed.onnx", S8)


def test_json(onnxopt, signed):
    result = onnxopt("explain", signed, "--json")
    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    first, second = 64 * 16 * 16 * 9, 64 * 16 * 16
    assert facts["target"] == load_target("ort").name
    assert facts["runtime"].startswith("onnxruntime ")
    assert facts["quantized"] is True
    assert (facts["layers"], facts["int8_layers"], facts["macs"]) == (2, 1, first + second)
    assert facts["int8_share"] == pytest.approx(second / (first + second))
    [layer] = facts["left"]
    assert layer["node"].startswith("Conv 'Conv_")
    assert layer["macs"] == first
    assert layer["reason"].endswith("they are converted where a value has one reader, its output has several")
    assert set(facts["conversions"]) >= {"QuantizeLinear", "DequantizeLinear"}
    assert facts["findings"] == []


def test_text(onnxopt, signed):
    result = onnxopt("explain", signed)
    assert result.exit_code == 0
    assert "int8 share of MACs       10.0% of 163.84 k, 1 of 2 layers" in result.stdout
    assert "90.0%       1  its activations are int8 and kernels take uint8" in result.stdout


def test_a_target_that_is_judged_by_rules(onnxopt, signed):
    facts = json.loads(onnxopt("explain", signed, "--target", "tensorrt", "--json").stdout)
    assert facts["runtime"] == ""
    assert {f["rule"] for f in facts["findings"]} == {"conv-activation", "tail"}
    result = onnxopt("explain", signed, "--target", "tensorrt")
    assert "target              tensorrt (not measured: what its documented rules say)" in result.stdout
    assert "conv-activation" in result.stdout


def test_a_float_model(onnxopt, net):
    result = onnxopt("explain", net)
    assert result.exit_code == 0
    assert "nothing is quantized" in result.stdout
    assert "int8 share of MACs       0.0%" in result.stdout
    assert "not quantized, though the target could run it in int8" in result.stdout


def test_a_size_is_given(onnxopt, signed):
    facts = json.loads(onnxopt("explain", signed, "--json", "--input-shape", "x:2x16x8x8").stdout)
    assert facts["macs"] == 2 * 64 * 16 * 16 * 10


def test_bad_requests(onnxopt, signed, tmp_path):
    for arguments, problem in (
        ((tmp_path / "none.onnx",), "no such file"),
        ((signed, "--target", "ortt"), "did you mean 'ort'?"),
    ):
        result = onnxopt("explain", *arguments)
        assert result.exit_code == 2
        assert problem in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_it_is_listed():
    assert "explain" in main.list_commands(None)

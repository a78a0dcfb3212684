"""`run -o` in the formats of runtimes."""

import json

import pytest


def test_ir_is_written_for_openvino(onnxopt, net, tmp_path):
    pytest.importorskip("openvino")
    output = tmp_path / "int8.xml"
    again = ["run", net, "--passes", "quantize", "--target", "openvino", "-o", output]
    result = onnxopt(*again)
    assert result.exit_code == 0, result.stderr
    assert f"wrote {output}, {tmp_path / 'int8.bin'}" in result.stderr
    assert onnxopt(*again).exit_code == 0  # over its own


def test_a_gate_on_size_counts_all_files(onnxopt, net, tmp_path):
    pytest.importorskip("openvino")
    output, report = tmp_path / "m.xml", tmp_path / "r.json"
    again = ["run", net, "--passes", "simplify", "--target", "openvino", "-o", output, "--report", report]
    assert onnxopt(*again).exit_code == 0
    size = json.loads(report.read_text())["after"]["bytes"]
    assert size == output.stat().st_size + (tmp_path / "m.bin").stat().st_size
    refused = onnxopt(*again, "--require", f"size<={size - 1}B")
    assert refused.exit_code == 3, refused.stderr
    assert onnxopt(*again, "--require", f"size<={size}B").exit_code == 0


def test_a_bin_of_somebody_else_is_not_replaced(onnxopt, net, tmp_path):
    pytest.importorskip("openvino")
    (tmp_path / "int8.bin").write_bytes(b"mine")
    result = onnxopt("run", net, "--passes", "simplify", "--target", "openvino", "-o", tmp_path / "int8.xml")
    assert result.exit_code == 2
    assert "int8.bin is there already and onnxopt did not write it" in result.stderr
    assert (tmp_path / "int8.bin").read_bytes() == b"mine"


def test_an_ending_that_does_not_fit_is_refused_before_work(onnxopt, net, tmp_path):
    result = onnxopt("run", net, "--passes", "no-such-pass", "-o", tmp_path / "int8.xml")
    assert result.exit_code == 2
    assert "loads no .xml file; give one that ends in .onnx or .ort" in result.stderr


def test_the_recipe_s_target_counts(onnxopt, net, tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text('version = 1\n[target]\nname = "openvino"\n[[pipeline]]\npass = "simplify"\n')
    result = onnxopt("run", net, "--recipe", recipe, "-o", tmp_path / "m.ort")
    assert "loads no .ort file" in result.stderr


def test_the_line_for_trtexec(onnxopt, net, tmp_path):
    output, report = tmp_path / "m.onnx", tmp_path / "r.json"
    result = onnxopt("run", net, "--passes", "quantize", "--target", "tensorrt", "-o", output, "--report", report)
    assert result.exit_code == 0, result.stderr
    line = f"trtexec --onnx={output} --saveEngine={tmp_path / 'm.engine'} --stronglyTyped --minShapes=image:1x3x8x8"
    assert line in result.stderr
    assert json.loads(report.read_text())["model"]["trtexec"].startswith(line)


def test_run_is_measured_on_a_device(onnxopt, net, device, tmp_path):
    report = tmp_path / "r.json"
    result = onnxopt(
        "run", net, "--passes", "quantize", "--device", device.url(), *device.arguments, "--report", report,
        "-o", tmp_path / "m.onnx",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    document = json.loads(report.read_text())
    assert document["before"]["latency_ms"] > 0
    assert document["target"]["why_not_measured"] == ""


@pytest.mark.parametrize(("target", "ending"), [("ort", ".ort"), ("openvino", ".xml")])
@pytest.mark.parametrize("there", [False, True])
def test_what_is_written_can_be_timed(onnxopt, net, tmp_path, request, target, ending, there):
    pytest.importorskip("openvino")
    output = tmp_path / f"m{ending}"
    assert onnxopt("run", net, "--passes", "simplify", "--target", target, "-o", output).exit_code == 0
    device = request.getfixturevalue("device") if there else None
    where = ["--device", device.url(), *device.arguments] if device else []
    result = onnxopt("bench", net, output, "--target", target, "--rounds", 3, "--json", *where)
    assert result.exit_code == 0, result.stderr
    assert [m["model"] for m in json.loads(result.stdout)["models"]] == ["net.onnx", output.name]


def test_what_another_runtime_reads_is_not_timed(onnxopt, tmp_path):
    result = onnxopt("bench", tmp_path / "m.xml")
    assert result.exit_code == 2
    assert "loads no .xml file" in result.stderr

"""`onnxopt inspect`."""

import json

from onnxopt.testing import parse_graph


def test_facts(onnxopt, net):
    result = onnxopt("inspect", net, "--json")
    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    assert facts["file"] == "net.onnx"
    assert facts["file_bytes"] == net.stat().st_size
    assert facts["opsets"] == {"ai.onnx": 17}
    assert facts["inputs"] == ["image: float32[N, 3, 8, 8]"]
    assert facts["outputs"] == ["scores: float32[N, 5]"]
    assert facts["run_at"] == ["image: float32[1, 3, 8, 8]"]
    assert facts["parameters"] == 8 * 27 + 8 + 8 * 72 + 8 + 40 + 5
    assert facts["weight_bytes"] == 4 * facts["parameters"]
    assert facts["macs"] == 64 * 8 * 27 + 64 * 8 * 72 + 40
    assert list(facts["operators"].items())[:3] == [("Conv", 2), ("Relu", 2), ("Flatten", 1)]
    assert facts["quantized"] is False


def test_what_is_prunable(onnxopt, net):
    prunable = json.loads(onnxopt("inspect", net, "--json").stdout)["prunable"]
    assert prunable["reached"] == {"Conv_0": 8, "Conv_2": 8}
    assert prunable["left"] == [{"why": "graph output 'scores'", "where": ["Gemm_6"]}]
    assert prunable["summary"] == "16 of 21 channels, in 2 of 3 groups"


def test_what_is_quantizable(onnxopt, net):
    quantizable = json.loads(onnxopt("inspect", net, "--json").stdout)["quantizable"]
    assert quantizable["reached"]["Conv_2"] == 64 * 8 * 72
    assert [(r["why"].split(":")[0], r["where"]) for r in quantizable["left"]] == [("stem", ["Conv 'Conv_0'"])]


def test_text(onnxopt, net):
    result = onnxopt("inspect", net)
    assert result.exit_code == 0
    assert "file        net.onnx, " in result.stdout
    assert "prunable: 16 of 21 channels" in result.stdout
    assert "  not Conv 'Conv_0': stem" in result.stdout
    assert "input 'image' [N, 3, 8, 8] is run at 1x3x8x8: the batch is 1" in result.stdout


def test_a_given_size_counts(onnxopt, net):
    facts = json.loads(onnxopt("inspect", net, "--json", "--input-shape", "image:2x3x8x8").stdout)
    assert facts["macs"] == 2 * (64 * 8 * 27 + 64 * 8 * 72 + 40)


def test_a_size_that_does_not_fit(onnxopt, net):
    result = onnxopt("inspect", net, "--input-shape", "image:1x3x9x9")
    assert result.exit_code == 2
    assert "is fixed at [N, 3, 8, 8]" in result.stderr


def test_a_model_that_cannot_be_run(onnxopt, store):
    odd = store("odd.onnx", "(float[n,3,h,w] x) => (float[7] y) <int64[1] s = {7}> { y = Reshape (x, s) }")
    result = onnxopt("inspect", odd)
    assert result.exit_code == 0
    assert "no size was found" in result.stdout
    assert "none of the usual sizes" in result.stdout


def test_metadata_functions_and_quantized(onnxopt, store):
    graph = parse_graph(
        "(float[1,4] x) => (float[1,4] y) <float s = {0.1}, uint8 z = {0}> "
        "{ q = QuantizeLinear (x, s, z)  y = DequantizeLinear (q, s, z) }"
    )
    graph.set_metadata("names", "long " * 100)
    result = onnxopt("inspect", store("q.onnx", graph), "--json")
    facts = json.loads(result.stdout)
    assert facts["quantized"] is True
    assert len(facts["metadata"]["names"]) == 61


def test_bad_files(onnxopt, tmp_path):
    (tmp_path / "text.onnx").write_text("this is no protobuf at all")
    for file, problem in ((tmp_path / "none.onnx", "no such file"), (tmp_path / "text.onnx", "not an ONNX model")):
        result = onnxopt("inspect", file)
        assert result.exit_code == 2
        assert problem in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_groups(onnxopt, net):
    result = onnxopt("inspect", net, "--groups")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[:6] == [
        "2 of 3 groups are free, with 16 of 21 channels",
        "",
        "Conv_0: 8 channels, 50.69 k MACs, free",
        "  made by      Conv_0  input 1 axis 0",
        "  constant of  Conv_0  input 2 axis 0",
        "  summed by    Conv_2  input 1 axis 1",
    ]
    assert "Gemm_6: 5 channels, 40 MACs, fixed: graph output 'scores'" in result.stdout


def test_groups_as_json(onnxopt, net):
    groups = json.loads(onnxopt("inspect", net, "--groups", "--json").stdout)
    assert [(g["name"], g["channels"], g["fixed"]) for g in groups] == [
        ("Conv_0", 8, None),
        ("Conv_2", 8, None),
        ("Gemm_6", 5, "graph output 'scores'"),
    ]
    assert groups[0]["macs"] == 64 * 8 * 27 + 64 * 8 * 72
    assert {"node": "Conv_2", "role": "in", "input": 1, "axis": 1} in groups[0]["members"]

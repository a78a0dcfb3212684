"""Files for runtimes: what their endings mean, and that all of one result give the same outputs."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxopt import formats, load, optimize
from onnxopt.errors import UsageError
from onnxopt.evaluation.agreement import worst_sqnr
from onnxopt.registry import load_target
from onnxopt.runtime.ort import OrtRuntime, OrtSession
from onnxopt.runtime.runner import OnnxRuntimeModel
from onnxopt.testing import parse_graph, random_feeds

TESTDATA = Path(__file__).parents[1] / "testdata"
PREPROCESS = "imagenet"
NOISE = 25.0  # dB; two runtimes round the same int8 model differently, by up to a step here and there
NET = """(float[N,3,8,8] image) => (float[N,8,8,8] y) <float[8,3,3,3] w, float[8] b> {
    a = Conv <pads = [1, 1, 1, 1]> (image, w, b)
    y = Relu (a)
}"""

WIDE = NET.replace("8", "16").replace("[N,3,16,16]", "[1,16,16,16]").replace("16,3,3,3", "16,16,3,3")


@pytest.fixture(scope="module")
def result():
    data = TESTDATA / "patches" / "train.csv"
    model = TESTDATA / "patches_classifier.onnx"
    return optimize(model, "quantize", data=data, preprocess=PREPROCESS, samples=8, verify="off", keep_anyway=True)


@pytest.fixture(scope="module")
def samples():
    random = np.random.default_rng(0)
    return [{"input": random.random((1, 3, 64, 64), np.float32)} for _ in range(4)]


@pytest.mark.parametrize(("name", "ending"), [("m.onnx", ".onnx"), ("m.ort", ".ort"), ("m.xml", ".xml")])
def test_the_size_is_that_of_all_files_written(result, tmp_path, name, ending):
    if ending == ".xml":
        pytest.importorskip("openvino")
    size = formats.size_of(result.graph, ending)
    assert sum(file.stat().st_size for file in result.save(tmp_path / name)) == size
    assert (size == result.report.after.bytes) == (ending == ".onnx")


def test_an_ending_has_its_dot():
    with pytest.raises(UsageError, match="has no dot"):
        optimize(TESTDATA / "patches_classifier.onnx", "simplify", target="openvino", ending="xml")


def test_ir_of_one_model_is_the_same_whatever_was_converted_before(result, tmp_path):
    pytest.importorskip("openvino")
    for name in ("first.xml", "second.xml"):
        result.save(tmp_path / name)
    assert (tmp_path / "first.xml").read_bytes() == (tmp_path / "second.xml").read_bytes()


def test_ir_ort_and_onnx_of_one_run_agree(result, samples, tmp_path):
    pytest.importorskip("openvino")
    from onnxopt.runtime.openvino import OpenVinoRuntime

    outputs = {}
    for name, runtime in (("m.onnx", OrtRuntime()), ("m.ort", OrtRuntime()), ("m.xml", OpenVinoRuntime())):
        written = result.save(tmp_path / name)
        assert written[0] == tmp_path / name
        session = runtime.open(written[0])
        outputs[name] = [session.run(feeds) for feeds in samples]
    assert worst_sqnr(outputs["m.onnx"], outputs["m.ort"]) > NOISE
    assert worst_sqnr(outputs["m.onnx"], outputs["m.xml"]) > NOISE


def test_the_ir_is_int8_and_whole(result, tmp_path):
    pytest.importorskip("openvino")
    xml, weights = result.save(tmp_path / "m.xml")
    assert weights == tmp_path / "m.bin"
    assert weights.stat().st_size < 0.5 * (TESTDATA / "patches_classifier.onnx").stat().st_size
    assert 'element_type="i8"' in xml.read_text()
    assert formats.is_ours(xml)
    assert formats.is_ours(weights)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.bin", "m.xml"]


def test_the_ort_file_fits_every_vector_width(tmp_path):
    graph = parse_graph(WIDE)
    OnnxRuntimeModel(graph.to_proto().SerializeToString(), 1, written=str(tmp_path / "here.onnx"))
    assert "ReorderOutput" in {n.op_type for n in onnx.load(tmp_path / "here.onnx").graph.node}  # ORT would, here
    (file,) = formats.save(graph, tmp_path / "m.ort")
    assert b"ReorderOutput" not in file.read_bytes()


def test_the_ort_file_keeps_metadata_and_fusions(result, tmp_path):
    (file,) = result.save(tmp_path / "m.ort")
    content = file.read_bytes()
    assert content[4:8] == b"ORTM"
    assert b"QLinearConv" in content
    assert formats.is_ours(file)


@pytest.mark.parametrize(
    ("name", "target", "problem"),
    [
        ("m.xml", "ort", "target 'ort-.*' loads no .xml file; give one that ends in .onnx or .ort"),
        ("m.ort", "openvino-vnni", "target 'openvino-vnni' loads no .ort file; give one that ends in .onnx or .xml"),
        ("m.engine", "ort-avx2", "loads no .engine file"),
        ("m.onx", "ort", r"m.onx: a model ends in .onnx, .xml, .ort, .engine, not in .onx"),
    ],
)
def test_an_ending_that_does_not_fit(name, target, problem):
    with pytest.raises(UsageError, match=problem):
        formats.check(Path(name), load_target(target))


def test_an_engine_needs_trtexec(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"no TensorRT \(trtexec\) on this machine; write m.onnx"):
        formats.check(Path("m.engine"), load_target("tensorrt"))


def test_the_trtexec_line():
    line = formats.trtexec_line(Path("a b/m.onnx"), parse_graph(NET), {"image": (1, 3, 8, 8)})
    assert line == [
        "trtexec", "--onnx=a b/m.onnx", "--saveEngine=a b/m.engine", "--stronglyTyped",
        "--minShapes=image:1x3x8x8", "--optShapes=image:1x3x8x8", "--maxShapes=image:1x3x8x8",
    ]  # fmt: skip
    static = parse_graph(NET.replace("N,", "2,"))
    assert formats.trtexec_line(Path("m.onnx"), static, {"image": (2, 3, 8, 8)})[3:] == ["--stronglyTyped"]


def test_a_full_disk_leaves_nothing(result, tmp_path, monkeypatch):
    import os

    pytest.importorskip("openvino")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for name in ("m.xml", "m.ort", "m.onnx"):
        with pytest.raises(UsageError, match="No space left"):
            result.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_float_models_are_exact_in_every_format(tmp_path):
    graph = parse_graph(NET)
    formats.save(graph, tmp_path / "m.onnx")
    formats.save(graph, tmp_path / "m.ort")
    feeds = random_feeds(graph)
    wanted = OrtSession(tmp_path / "m.onnx").run(feeds)["y"]
    np.testing.assert_allclose(OrtSession(tmp_path / "m.ort").run(feeds)["y"], wanted, rtol=1e-5, atol=1e-5)
    assert [n.op for n in load(tmp_path / "m.onnx").nodes] == ["Conv", "Relu"]

"""ONNX Runtime on 64-bit ARM and on x86 without VNNI, run by qemu: what it fuses and computes, not how fast.

Needs the folder that `emulate.sh` makes: `pytest --slow --emulate FOLDER`.
"""

import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxopt import load, optimize
from onnxopt.runtime.ort import OrtSession
from onnxopt.testing import parse_graph

TESTDATA = Path(__file__).parents[2] / "testdata"
CLASSIFIER, PICTURES = TESTDATA / "patches_classifier.onnx", TESTDATA / "patches" / "train.csv"
SCRIPT = """
import sys
import numpy, onnxruntime
model, optimized, feeds, outputs = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 4
options.optimized_model_filepath = optimized
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
numpy.save(outputs, session.run(None, dict(numpy.load(feeds)))[0])
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(request):
    made = request.config.getoption("--emulate")
    if made is None:
        pytest.skip("needs --emulate FOLDER, as made by emulate.sh")
    return Path(made).absolute()


@pytest.mark.parametrize("target", ["ort-arm", "ort-avx2"])  # int8 and uint8 activations
def test_all_layers_but_the_stem_run_in_int8_and_right_on_arm(folder, tmp_path, target):
    result = optimize(CLASSIFIER, "quantize", target=target, data=PICTURES, preprocess="imagenet", keep_anyway=True)
    result.save(tmp_path / "model.onnx")
    feeds = {"input": np.random.default_rng(0).standard_normal((8, 3, 64, 64)).astype(np.float32)}
    np.savez(tmp_path / "feeds.npz", **feeds)
    files = [tmp_path / name for name in ("model.onnx", "optimized.onnx", "feeds.npz", "outputs.npy")]
    subprocess.run([folder / "python", "-c", SCRIPT, *files], check=True, capture_output=True)

    ops = Counter(node.op_type for node in onnx.load(files[1]).graph.node)
    assert ops["QLinearConv"] == len(list(load(CLASSIFIER).nodes_of("Conv"))) - 1
    assert ops["QGemm"] == 1
    assert ops["QuantizeLinear"] == 1
    assert not ops["DequantizeLinear"]

    [written] = OrtSession(result.model, optimized=False).run(feeds).values()
    error = np.load(files[3]) - written
    assert 10 * np.log10(np.square(written).sum() / np.square(error).sum()) > 35


@pytest.mark.parametrize(("target", "saturates"), [("ort-vnni", True), ("ort-avx2", False)])
def test_what_saturates_without_vnni(folder, tmp_path, target, saturates):
    text = "(float[1,16,4,4] x) => (float[1,16,4,4] y) <float[16,16,1,1] w, float[16,16,1,1] v>"
    graph = parse_graph(text + "{ a = Conv (x, w) b = Relu (a) y = Conv (b, v) }")
    for conv in graph.nodes_of("Conv"):
        conv.inputs[1] = graph.add_constant("halves", np.full((16, 16, 1, 1), 0.5, np.float32))
    feeds = {"x": np.ones((1, 16, 4, 4), np.float32)}
    optimize(graph, "quantize", target=target, data=[feeds] * 4, keep_anyway=True).save(tmp_path / "model.onnx")
    np.savez(tmp_path / "feeds.npz", **feeds)
    files = [tmp_path / name for name in ("model.onnx", "optimized.onnx", "feeds.npz", "outputs.npy")]
    qemu = [
        folder / "qemu/usr/bin/qemu-x86_64-static",
        "-cpu",
        "Haswell",
        "-E",
        f"PYTHONPATH={sysconfig.get_path('purelib')}",
    ]
    subprocess.run([*qemu, Path(sys.executable).resolve(), "-c", SCRIPT, *files], check=True, capture_output=True)
    # 255 * 127 + 255 * 127 ends at 32767 in 16 bits: half of what it is.
    assert np.load(files[3]) == pytest.approx(64 * (32767 / 64770 if saturates else 1), rel=0.01)

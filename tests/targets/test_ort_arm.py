"""ONNX Runtime for 64-bit ARM, run by qemu: what it fuses, and what it computes. Its speed there says nothing.

Needs the folder that `arm_python.sh` makes: `pytest --slow --arm FOLDER`.
"""

import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxopt import load, optimize
from onnxopt.runtime.ort import OrtSession

TESTDATA = Path(__file__).parents[2] / "testdata"
CLASSIFIER, PICTURES = TESTDATA / "patches_classifier.onnx", TESTDATA / "patches" / "train.csv"
ON_ARM = """
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
def python(request):
    folder = request.config.getoption("--arm")
    if folder is None:
        pytest.skip("needs --arm FOLDER, as made by arm_python.sh")
    return Path(folder) / "python"


@pytest.mark.parametrize("target", ["ort-arm", "ort-avx2"])  # int8 and uint8 activations
def test_all_layers_but_the_stem_run_in_int8_and_right(python, tmp_path, target):
    result = optimize(CLASSIFIER, "quantize", target=target, data=PICTURES, preprocess="imagenet", keep_anyway=True)
    result.save(tmp_path / "model.onnx")
    feeds = {"input": np.random.default_rng(0).standard_normal((8, 3, 64, 64)).astype(np.float32)}
    np.savez(tmp_path / "feeds.npz", **feeds)
    files = [tmp_path / name for name in ("model.onnx", "optimized.onnx", "feeds.npz", "outputs.npy")]
    subprocess.run([python, "-c", ON_ARM, *files], check=True, capture_output=True)

    ops = Counter(node.op_type for node in onnx.load(files[1]).graph.node)
    assert ops["QLinearConv"] == len(list(load(CLASSIFIER).nodes_of("Conv"))) - 1
    assert ops["QGemm"] == 1
    assert ops["QuantizeLinear"] == 1
    assert not ops["DequantizeLinear"]

    [written] = OrtSession(result.model, optimized=False).run(feeds).values()
    error = np.load(files[3]) - written
    assert 10 * np.log10(np.square(written).sum() / np.square(error).sum()) > 35

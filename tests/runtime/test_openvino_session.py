"""OpenVINO as a runtime: what comes out bears the names of the model's outputs."""

import subprocess
import sys

import numpy as np
import pytest

from onnxopt.errors import Unloadable
from onnxopt.testing import outputs_of, parse_graph

pytest.importorskip("openvino")

# What OpenVINO takes for a fake quantizer and renames as it compiles.
QUANTIZED = """(float[1,4] x) => (float[1,4] y) <float s = {0.1}, uint16 z = {32768}> {
  a = Relu (x)
  q = QuantizeLinear (a, s, z)
  y = DequantizeLinear (q, s, z)
}"""
IDENTITY = "(float[1,4] x) => (float[1,4] y, float[1,4] z) { z = Relu (x)  y = Identity (z) }"


@pytest.mark.parametrize("text", [QUANTIZED, IDENTITY])
def test_outputs_bear_the_names_of_the_model(text):
    from onnxopt.runtime.openvino import OpenVinoSession

    graph = parse_graph(text, opset=21)
    feeds = {"x": np.asarray([[-1, 0, 0.5, 1]], np.float32)}
    got = OpenVinoSession(graph.to_proto(), precision="f32").run(feeds)
    wanted = outputs_of(graph, feeds)
    assert list(got) == list(wanted)
    for name, values in wanted.items():
        np.testing.assert_allclose(got[name], values, rtol=0.01)


def test_it_says_which_operators_it_does_not_have():
    from onnxopt.runtime.openvino import OpenVinoSession

    graph = parse_graph(IDENTITY)
    graph.nodes[1].op = "Swirl"
    with pytest.raises(Unloadable, match=r"OpenVINO cannot load the model: No conversion rule found .*Swirl"):
        OpenVinoSession(graph.to_proto())


INTERRUPTED = """
import os, signal, sys, time
from onnxopt.runtime.openvino import OpenVinoSession
sessions = [OpenVinoSession(sys.argv[1]) for _ in range(2)]
del sessions[0], sessions[0]  # the first comes and goes first
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_after_sessions_have_gone_is_no_segmentation_fault(tmp_path):
    """OpenVINO takes stacks for signals from under Python's handler where two of its cores overlap."""
    model = tmp_path / "model.onnx"
    model.write_bytes(parse_graph(IDENTITY, opset=21).to_proto().SerializeToString())
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, model], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr

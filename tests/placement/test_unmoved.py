"""A Q that ONNX Runtime would move before a float operator stays behind it."""

import numpy as np
import onnx
import onnxruntime

from onnxopt.data import InputSpec, synthetic
from onnxopt.manager import run_pass
from onnxopt.pass_api import Context
from onnxopt.targets.ort import ORT
from onnxopt.testing import outputs_of, parse_graph
from onnxopt_passes.calibrate import Calibrate
from onnxopt_passes.insert_qdq import InsertQDQ


def test_a_q_behind_a_float_pool_cannot_move_before_it(tmp_path):
    graph = parse_graph(
        """(float[1,3,8,8] x) => (float[1,16,4,4] y) <float[16,3,3,3] w0, float[16,16,1,1] w1, float[16,16,1,1] w2> {
        a = Conv <pads = [1, 1, 1, 1]> (x, w0)  b = Relu (a)  c = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (b)
        d = Conv (c, w1)  e = Relu (d)  y = Conv (e, w2) }"""
    )
    before = graph.copy()
    inputs = (InputSpec("x", (1, 3, 8, 8), np.dtype(np.float32)),)
    context = Context(ORT, inputs=inputs, fit=synthetic(inputs, 4))
    run_pass(Calibrate(), graph, context, [])
    run_pass(InsertQDQ(), graph, context, [])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(graph.to_proto().SerializeToString(), options, providers=["CPUExecutionProvider"])
    run = {n.output[0]: n for n in onnx.load(options.optimized_model_filepath).graph.node}
    (pool,) = (n for n in run.values() if n.op_type == "MaxPool")
    assert run[pool.input[0]].op_type == "Conv"
    assert [n.op_type for n in run.values()].count("QLinearConv") == 1
    feeds = {"x": np.random.default_rng(0).random((1, 3, 8, 8), np.float32)}
    wanted, got = outputs_of(before, feeds)["y"], outputs_of(graph, feeds)["y"]
    assert np.square(wanted - got).sum() < 1e-2 * np.square(wanted).sum()

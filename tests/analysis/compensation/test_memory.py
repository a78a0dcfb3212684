"""Wide layers: memory is a few covariance matrices, however many pictures there are."""

import tracemalloc

import numpy as np
import pytest

from onnxopt.analysis.compensation.elimination import Problem, removal_order
from onnxopt.analysis.compensation.fitting import refit
from onnxopt.analysis.compensation.moments import Sums
from onnxopt.analysis.compensation.reading import read
from onnxopt.testing import parse_graph

LAYERS = {"1x1, 2048 channels": (2048, 1, 0), "3x3, 512 channels": (512, 3, 1)}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_covariances_are_streamed(name):
    channels, kernel, pad = LAYERS[name]
    text = f"""(float[1,{channels},14,14] x) => (float y) <float[8,{channels},{kernel},{kernel}] w> {{
        y = Conv <pads = [{pad},{pad},{pad},{pad}]> (x, w) }}"""
    graph = parse_graph(text)
    reader = read(graph, 0, np.arange(channels))
    length = channels * kernel**2
    generator = np.random.default_rng(0)
    outputs = np.zeros((1, 8, 14, 14), np.float32)
    tracemalloc.start()
    sums = Sums(reader.patches.shape, with_outputs=False)
    for _ in range(12):
        sums.add(reader.rows(generator.standard_normal((1, channels, 14, 14)).astype(np.float32), outputs, 100)[0])
    moments = sums.result()
    del sums
    weight = reader.matrix(graph)
    columns = np.arange(length).reshape(channels, -1)
    order = removal_order([Problem.of(moments.covariance[0], weight[0], columns)], channels)
    kept = ~np.isin(reader.roots, order[: channels // 4])
    matrix, _ = refit(moments, weight, np.zeros((1, 8)), kept)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.isfinite(matrix).all()
    assert sorted(order.tolist()) == list(range(channels))
    assert peak < 6 * 8 * length**2

"""How far errors from before a layer are made up for is chosen on samples that it was not fitted on."""

import numpy as np
import pytest

from onnxopt.analysis.channels import ChannelGroups
from onnxopt.analysis.compensation.abreast import Abreast, errors_of
from onnxopt.analysis.compensation.fitting import refits
from onnxopt.analysis.compensation.reading import find_readers
from onnxopt.analysis.compensation.refitting import refit_readers
from onnxopt.testing import parse_graph

NET = """(float[1,3,6,6] x) => (float[1,4,6,6] y)
    <float[12,3,1,1] u, float[12] s, float[4,12,1,1] w, float[4] t> {
    a = Conv (x, u, s)  b = Relu (a)  y = Conv (b, w, t) }"""


def pictures(count, seed, channels):
    """Two sources in three channels; which of them vary is given."""
    generator = np.random.default_rng(seed)
    sources = generator.standard_normal((count, 1, 2, 6, 6))
    all_three = np.concatenate([sources[:, :, :1], sources[:, :, 1:], sources.sum(axis=2, keepdims=True)], axis=2)
    return [{"x": (values * np.asarray(channels)[:, None, None]).astype(np.float32)} for values in all_three]


def refitted(fit, judged):
    """Error of the last layer on the judged samples after one channel has gone, and that of every choice."""
    before = parse_graph(NET)
    after = before.copy()
    after.own_constant(after.nodes[0], 1).values[:, 0] = 0  # what comes before has gone wrong
    found = ChannelGroups.of(before)
    (reader,) = find_readers(before, found, found.free)
    kept = found.kept({found.free[0].name: list(range(11))})
    walks, judge = Abreast(before, after, fit), Abreast(before, after, judged)
    moments = walks.moments(reader, centred=True)
    choices = refits(moments, reader.matrix(after), reader.bias(after), kept.where(reader.roots))
    every = errors_of(judge.rows(reader), choices)
    assert refit_readers(after, before, [reader], kept, (fit, judged)) == 1
    assert not reader.matrix(after)[0][:, 11].any()
    return errors_of(judge.rows(reader), [(reader.matrix(after), reader.bias(after))])[0], every


def test_errors_that_others_show_too_are_made_up_for():
    chosen, every = refitted(pictures(20, 0, (1, 1, 1)), pictures(5, 1, (1, 1, 1)))
    assert chosen == pytest.approx(min(every), rel=1e-4)
    assert chosen < 0.8 * every[0]  # the first leaves them as they are


def test_errors_that_others_do_not_show_are_left():
    chosen, every = refitted(pictures(20, 0, (1, 1, 1)), pictures(5, 1, (0, 1, 1)))
    assert chosen == pytest.approx(every[0], rel=1e-4)
    assert chosen < 0.8 * every[-1]


def test_nothing_gone_nothing_refitted():
    before = parse_graph(NET)
    after = before.copy()
    found = ChannelGroups.of(before)
    readers = find_readers(before, found, found.free)
    samples = pictures(3, 0, (1, 1, 1))
    assert refit_readers(after, before, readers, found.kept({}), (samples, samples)) == 0
    assert np.array_equal(after.constant(after.nodes[2].inputs[1]), before.constant(before.nodes[2].inputs[1]))

"""Costs of cuts that are not made, and how many channels of each group go."""

import numpy as np
import pytest

from onnxopt.analysis.channels import ChannelGroups, cut
from onnxopt.analysis.compensation import allocate, mac_costs, size_costs
from onnxopt.analysis.compensation.allocation import candidates, damage_at
from onnxopt.analysis.cost import Cost
from onnxopt.report.record import PassRecord
from onnxopt.testing import parse_graph, plain_context

GRAPHS = {
    "chain": """(float[1,3,8,8] x) => (float[1,2,8,8] y)
        <float[16,3,3,3] w1, float[16] b1, float[12,16,1,1] w2, float[2,12,1,1] w3> {
        a = Conv <pads = [1,1,1,1]> (x, w1, b1)  b = Relu (a)  c = Conv (b, w2)  y = Conv (c, w3) }""",
    "depthwise": """(float[1,3,8,8] x) => (float[1,2,8,8] y)
        <float[16,3,1,1] w1, float[16,1,3,3] d, float[2,16,1,1] w3> {
        a = Conv (x, w1)  b = Conv <group = 16, pads = [1,1,1,1]> (a, d)  y = Conv (b, w3) }""",
    "segments": """(float[1,3,8,8] x) => (float[1,2,8,8] y)
        <float[8,3,1,1] w1, float[4,3,1,1] w2, float[6,12,1,1] w3, float[2,9,1,1] w4> {
        a = Conv (x, w1)  b = Conv (x, w2)  c = Concat <axis = 1> (a, b)  d = Conv (c, w3)
        e = Concat <axis = 1> (d, x)  y = Conv (e, w4) }""",
    "residual": """(float[1,3,8,8] x) => (float[1,2,8,8] y)
        <float[8,3,1,1] w1, float[8,8,3,3] w2, float[8,8,3,3] w3, float[2,8,1,1] w4> {
        a = Conv (x, w1)  b = Conv <pads = [1,1,1,1]> (a, w2)  c = Relu (b)
        d = Conv <pads = [1,1,1,1]> (c, w3)  e = Add (a, d)  y = Conv (e, w4) }""",
}


def costs_of(graph):
    context = plain_context()
    context.bind(graph, PassRecord("cost"))
    return context.get(Cost)


@pytest.mark.parametrize("name", GRAPHS)
def test_costs_are_those_after_the_cut(name):
    graph = parse_graph(GRAPHS[name])
    found = ChannelGroups.of(graph)
    macs, size = (
        mac_costs(found, found.free, costs_of(graph).macs),
        size_costs(found, found.free, as_bytes=True),
    )
    params = size_costs(found, found.free, as_bytes=False)
    assert macs.total == costs_of(graph).total_macs
    assert params.total == costs_of(graph).parameters
    generator = np.random.default_rng(0)
    for _ in range(5):
        counts = [int(generator.integers(1, g.size + 1)) for g in found.free]
        left = np.asarray([[c / g.size for c, g in zip(counts, found.free, strict=True)]])
        trial = graph.copy()
        choice = {g.name: list(range(c)) for c, g in zip(counts, found.free, strict=True)}
        cut(trial, found.relations, found.kept(choice))
        after = costs_of(trial)
        assert macs.of(left)[0] == pytest.approx(after.total_macs)
        assert params.of(left)[0] == pytest.approx(after.parameters)
        assert size.of(left)[0] == pytest.approx(4 * after.parameters)


def test_damage_between_what_was_measured():
    curve = {8: 0.1, 4: 1.0}
    at = damage_at(curve, 16, [16, 12, 8, 6, 4, 2])
    assert at[0] == 0
    assert at[[2, 4]] == pytest.approx([0.1, 1.0])
    assert np.all(np.diff(at) > 0)
    assert at[1] < 0.05  # less than in proportion
    # Noise that says otherwise is not believed.
    assert np.all(np.diff(damage_at({12: 0.5, 8: 0.1, 4: 1.0}, 16, range(16, 0, -1))) >= 0)


def test_counts_are_multiples():
    (group,) = (g for g in ChannelGroups.of(parse_graph(GRAPHS["chain"])).free if g.size == 12)
    assert candidates(group, 1) == list(range(12, 0, -1))
    assert candidates(group, 5) == [12, 10, 5]
    assert candidates(group, 16) == [12]


@pytest.mark.parametrize("share", [0.9, 0.6, 0.3, 0.05])
@pytest.mark.parametrize("align", [1, 4])
def test_budget_is_met_where_it_can_be(share, align):
    graph = parse_graph(GRAPHS["chain"])
    found = ChannelGroups.of(graph)
    costs = mac_costs(found, found.free, costs_of(graph).macs)
    curves = {g.name: {g.size // 2: 0.1 * (i + 1)} for i, g in enumerate(found.free)}
    counts = allocate(found.free, curves, costs, share * costs.total, align)
    left = np.asarray([[counts[g.name] / g.size for g in found.free]])
    least = np.asarray([[align / g.size for g in found.free]])
    assert costs.of(left)[0] <= max(share * costs.total, costs.of(least)[0] + 1e-6)
    assert all(c % align == 0 for c in counts.values())


def test_what_hurts_less_goes_first():
    graph = parse_graph(GRAPHS["chain"])
    found = ChannelGroups.of(graph)
    costs = mac_costs(found, found.free, costs_of(graph).macs)
    names = [g.name for g in found.free]
    for gentle, harsh in (names, names[::-1]):
        curves = {gentle: {4: 0.001}, harsh: {4: 10.0}}
        counts = allocate(found.free, curves, costs, 0.8 * costs.total, 1)
        sizes = {g.name: g.size for g in found.free}
        assert counts[gentle] < sizes[gentle]
        assert counts[harsh] == sizes[harsh]


def test_what_was_not_measured_stays():
    graph = parse_graph(GRAPHS["chain"])
    found = ChannelGroups.of(graph)
    costs = mac_costs(found, found.free, costs_of(graph).macs)
    first = found.free[0]
    counts = allocate(found.free, {first.name: {4: 1.0}}, costs, 0, 1)
    assert counts[first.name] == 1
    assert all(counts[g.name] == g.size for g in found.free[1:])

"""Rules of other distributions, and what is told about groups and cuts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onnxopt.analysis.channels import ChannelGroups, Policy, cut, groups_text, groups_under, provenance
from onnxopt.analysis.channels.table import GROUP
from onnxopt.errors import OptimizationError, UsageError
from onnxopt.pass_api import Context
from onnxopt.report.record import PassRecord
from onnxopt.testing import parse_graph, plain_context

CUSTOM = """<ir_version: 8, opset_import: ["": 17, "acme": 1]>
    g (float[1,3,4,4] x) => (float[1,2,4,4] y) <float[6,3,1,1] w1, float[2,6,1,1] w2> {
    a = Conv (x, w1)  b = acme.Swoosh (a)  y = Conv (b, w2) }"""

Distribute = Callable[..., Path]


def first_fixed() -> str | None:
    return ChannelGroups.of(parse_graph(CUSTOM)).groups[0].fixed


def test_a_distribution_adds_a_rule(distribute: Distribute) -> None:
    assert first_fixed() == "Swoosh 'b' is an operator without a channel rule"
    distribute("acme", {GROUP: {"acme.Swoosh": "onnxopt.analysis.channels.elementwise:unary"}})
    assert first_fixed() is None


def test_a_rule_of_its_own(distribute: Distribute) -> None:
    text = '''
def swoosh(node, trace):
    """The first axis of channels passes."""
    trace.put_all(node.outputs[0], trace.tracked(node.inputs[0]))
'''
    distribute("acme", {GROUP: {"acme.Swoosh": "acme_rules:swoosh"}}, acme_rules=text)
    assert first_fixed() is None


def test_a_built_in_rule_is_not_replaced(distribute: Distribute) -> None:
    distribute("acme", {GROUP: {"Relu": "onnxopt.analysis.channels.elementwise:unary"}})
    with pytest.raises(UsageError, match="there are two channel rules for Relu"):
        first_fixed()


def test_a_rule_that_cannot_be_imported(distribute: Distribute) -> None:
    distribute("acme", {GROUP: {"acme.Swoosh": "nowhere:rule"}})
    with pytest.raises(OptimizationError, match=r"channel rule 'acme.Swoosh' \(nowhere:rule\) cannot be imported"):
        first_fixed()


ATTENTION = """(float[1,4,6] x) => (float[1,4,3] y)
    <float[6,8] wq, float[6,8] wk, float[6,8] wv, int64[4] s = {1,4,2,4}, int64[3] t = {1,4,8},
     float[8,3] w> {
    a = MatMul (x, wq)  b = MatMul (x, wk)  c = MatMul (x, wv)  d = Reshape (a, s)
    e = Reshape (b, s)  f = Reshape (c, s)
    q = Transpose <perm = [0,2,1,3]> (d)  k = Transpose <perm = [0,2,3,1]> (e)  v = Transpose <perm = [0,2,1,3]> (f)
    m = MatMul (q, k)  n = Softmax (m)  o = MatMul (n, v)  p = Transpose <perm = [0,2,1,3]> (o)  r = Reshape (p, t)
    y = MatMul (r, w) }"""


def bound(text: str) -> Context:
    context = plain_context()
    context.bind(parse_graph(text), PassRecord("test"))
    return context


def test_products_of_activations_count_to_the_channels_they_sum_over() -> None:
    found = {g.name: g.macs for g in bound(ATTENTION).get(ChannelGroups).free}
    scores = 2 * 4 * 4 * 4
    assert found == {"a": 2 * 4 * 6 * 8 + scores, "c": 4 * 6 * 8 + scores + 4 * 8 * 3}


def test_another_policy_is_another_analysis() -> None:
    context = bound(ATTENTION)
    heads = groups_under(Policy(whole_blocks=True))
    assert {g.name: g.size for g in context.get(ChannelGroups).free} == {"a": 4, "c": 4}
    assert {g.name: g.size for g in context.get(heads).free} == {"a": 2}
    assert groups_under(Policy()) is ChannelGroups
    assert groups_under(Policy(whole_blocks=True)) is heads


def test_groups_in_words() -> None:
    assert groups_text(ChannelGroups.of(parse_graph(ATTENTION)).groups).splitlines()[2:6] == [
        "a: 8 channels in 4 blocks, 0 MACs, free",
        "  made by  a  input 1 axis 1",
        "  made by  b  input 1 axis 1",
        "",
    ]


def test_provenance_tells_what_is_left_of_each_tensor() -> None:
    graph = parse_graph(ATTENTION)
    original = graph.copy()
    found = ChannelGroups.of(graph)
    kept = found.kept({"a": [0, 2], "c": [1, 2, 3]})
    told = provenance(found.relations, kept)
    assert told["wq"] == told["wk"] == {"1": [0, 2, 4, 6]}
    assert told["w"] == {"0": [1, 2, 3, 5, 6, 7]}
    assert told["d"] == {"3": [0, 2]}
    cut(graph, found.relations, kept)
    before = {c.name: c.values for c in original.initializers()}
    for constant in graph.initializers():
        values = before.get(constant.name)
        if values is not None and constant.name in told:
            for axis, places in told[constant.name].items():
                values = np.take(values, places, axis=int(axis))
            assert (constant.values == values).all()

"""What stands in for a block."""

import numpy as np
import pytest

from onnxopt.analysis.blocks import FORMS, StandIn, replace_block, settle
from onnxopt.analysis.blocks.finding import Block, find_blocks
from onnxopt.analysis.compensation.moments import Sums
from onnxopt.analysis.cost import Cost
from onnxopt.analysis.shapes import RunShapes
from onnxopt.graph import Graph
from onnxopt.report.record import PassRecord
from onnxopt.testing import outputs_of, parse_graph, plain_context, random_feeds

NET = """(float[1,4,5,5] x) => (float[1,3,5,5] z) <float[4,4,1,1] u, float[4,4,1,1] v, float[3,4,1,1] w, float[3] c> {
    s = Conv (x, u)  b = Conv (s, v)  y = Add (s, b)  z = Conv (y, w, c) }"""


def blocks_of(graph: Graph) -> list[Block]:
    context = plain_context()
    context.bind(graph, PassRecord("test"))
    return find_blocks(graph, context.get(RunShapes), context.get(Cost).macs)


def stand_in(form: str, graph: Graph) -> StandIn:
    """Fitted to the block of a graph, which is linear."""
    inputs = np.random.default_rng(0).standard_normal((1, 2000, 4)).astype(np.float32)
    matrix = np.eye(4, dtype=np.float32) + graph.constant(graph.nodes[1].inputs[1]).reshape(4, 4)
    sums = Sums((1, 4, 4), with_outputs=True)
    sums.add(inputs, inputs @ matrix.T + np.float32(0.5))
    return StandIn.fit(form, sums.result())


def test_a_block_and_what_goes_with_it():
    (block,) = blocks_of(parse_graph(NET))
    assert block == Block("y", "y", "s", ("b",), 4 * 4 * 25, (1, 4, 5, 5), 1)


@pytest.mark.parametrize("form", FORMS)
def test_a_linear_block(form):
    before = parse_graph(NET)
    graph, (block,) = before.copy(), blocks_of(before)
    found = stand_in(form, before)
    feeds = random_feeds(before)
    true = before.constant(before.nodes[1].inputs[1]).reshape(4, 4)
    assert found.matrix == pytest.approx(np.eye(4) + true, abs=0.4)
    replace_block(graph, block, found)
    wanted, given = (outputs_of(g, feeds)["z"] for g in (before, graph))
    plain = before.copy()
    replace_block(plain, block, stand_in("nothing", before))
    errors = [np.square(o - wanted - np.mean(o - wanted)).mean() for o in (given, outputs_of(plain, feeds)["z"])]
    assert errors[0] < (0.1 if form in {"readers", "conv"} else 1.01) * errors[1]
    assert "b" not in {t.name for n in graph.nodes for t in n.outputs}


def test_settling_is_exact():
    graph = parse_graph(NET)
    (block,) = blocks_of(graph)
    replace_block(graph, block, stand_in("conv", graph))
    feeds = random_feeds(graph)
    before = outputs_of(graph, feeds)["z"]
    assert settle(graph, ["y", "gone"]) == 1
    assert [n.op for n in graph.nodes] == ["Conv", "Conv"]
    assert outputs_of(graph, feeds)["z"] == pytest.approx(before, rel=1e-5, abs=1e-5)

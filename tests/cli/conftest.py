"""A command line and small models for it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from onnxopt import Graph, save
from onnxopt.cli.main import main
from onnxopt.testing import parse_graph

NET = """(float[N,3,8,8] image) => (float[N,5] scores) <
    float[8,3,3,3] w1, float[8] b1, float[8,8,3,3] w2, float[8] b2, float[8,5] w3, float[5] b3
> {
    a = Conv <pads = [1, 1, 1, 1]> (image, w1, b1)
    b = Relu (a)
    c = Conv <pads = [1, 1, 1, 1]> (b, w2, b2)
    d = Relu (c)
    e = GlobalAveragePool (d)
    f = Flatten (e)
    scores = Gemm (f, w3, b3)
}"""


@pytest.fixture
def onnxopt() -> Callable[..., Result]:
    """Run the command line; arguments become text."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="onnxopt")

    return run


@pytest.fixture
def store(tmp_path: Path) -> Callable[[str, str | Graph], Path]:
    """Write a graph, or the text of one, into a file of this name; its nodes are `Conv_0`, `Relu_1`, …"""

    def write(name: str, graph: str | Graph) -> Path:
        graph = parse_graph(graph) if isinstance(graph, str) else graph
        for number, node in enumerate(graph.nodes):
            node.name = f"{node.op}_{number}"
        save(graph, tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def net_text() -> str:
    """A small classifier."""
    return NET


@pytest.fixture
def net(store: Callable[[str, str], Path]) -> Path:
    """The small classifier on disk."""
    return store("net.onnx", NET)

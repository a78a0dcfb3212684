"""Dumps, reproducers, timing, progress and snapshots."""

import io
import tomllib
from itertools import count

import onnx.parser
import pytest

from onnxopt import Context, Graph, OptimizationError, Pass, UsageError, load, option
from onnxopt.manager import run_pass
from onnxopt.observers.bisect import Snapshots, first_bad
from onnxopt.observers.dump import Dump
from onnxopt.observers.progress import Progress
from onnxopt.observers.reproduce import Reproduce
from onnxopt.observers.timing import Timing
from onnxopt.testing import graph_text, parse_graph, plain_context

MODEL = """(float[1,4] x) => (float[1,6] y) <float[4,6] w, float[6] b = {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}> {
    y = Gemm (x, w, b)
}"""


class Append(Pass):
    """Put an operator at the end."""

    name = "append"
    op: str = option(default="Relu", help="Which.")
    scopes: tuple[str, ...] = option(default=("a", 'say "b"'), help="Words.")
    limit: float | None = option(default=None, help="A number.")

    def run(self, graph: Graph, context: Context) -> bool:
        if self.op == "Nothing":
            return False
        if self.op == "Failure":
            raise ZeroDivisionError("nothing divides by zero")
        if self.op == "Refusal":
            raise UsageError("not with me")
        node = next(n for n in graph.nodes if n.outputs[0] is graph.outputs[0])
        inner = type(node.outputs[0])(graph.unique_name("inner"))
        output = node.outputs[0]
        node.outputs[0] = inner
        graph.add_node(self.op, [inner], outputs=[output])
        return True


def run(observers: list, *ops: str) -> Graph:
    graph, context = parse_graph(MODEL), plain_context()
    for op in ops:
        run_pass(Append(op=op), graph, context, observers)
    return graph


def test_dumps_are_numbered_where_something_changed(tmp_path):
    run([Dump(tmp_path / "deep" / "dumps")], "Relu", "Nothing", "Sigmoid")
    files = sorted((tmp_path / "deep" / "dumps").iterdir())
    assert [f.name for f in files] == ["00-input.onnxtxt", "01-append.onnxtxt", "02-append.onnxtxt"]
    assert files[2].read_text().startswith('# after append{op=Sigmoid, scopes=[a, "say \\"b\\""], limit=none}\n')


def test_dumps_elide_large_weights_and_can_be_read(tmp_path):
    run([Dump(tmp_path)], "Relu")
    text = (tmp_path / "01-append.onnxtxt").read_text()
    model = onnx.parser.parse_model(text)
    assert [n.op_type for n in model.graph.node] == ["Gemm", "Relu"]
    assert [t.name for t in model.graph.initializer] == ["b"]
    assert "# w: float[4,6] sha256 " in text
    assert len(text) < 1000


def test_dumps_of_equal_graphs_are_equal(tmp_path):
    for name in "ab":
        run([Dump(tmp_path / name)], "Relu")
    names = [f.name for f in (tmp_path / "a").iterdir()]
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)


def test_a_changed_weight_changes_the_dump(tmp_path):
    graph = parse_graph(MODEL)
    other = parse_graph(MODEL, seed=1)
    for name, g in (("a", graph), ("b", other)):
        run_pass(Append(), g, plain_context(), [Dump(tmp_path / name)])
    assert (tmp_path / "a" / "00-input.onnxtxt").read_text() != (tmp_path / "b" / "00-input.onnxtxt").read_text()


def test_dumps_need_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="dumps cannot be written there"):
        Dump(tmp_path / "file")


def test_a_failure_leaves_a_reproducer(tmp_path):
    with pytest.raises(OptimizationError, match="pass append failed: ZeroDivisionError") as failure:
        run([Reproduce(tmp_path / "again")], "Relu", "Failure")
    folder = tmp_path / "again"
    assert f"onnxopt run {folder / 'model.onnx'} --recipe" in failure.value.__cause__.__notes__[0]
    expected = parse_graph(MODEL)
    run_pass(Append(), expected, plain_context(), [])
    assert graph_text(load(folder / "model.onnx")) == graph_text(expected)
    assert tomllib.loads((folder / "recipe.toml").read_text()) == {
        "version": 1,
        "target": {"name": "plain"},
        "guard": {"never_slower": False},
        "pipeline": [{"pass": "append", "op": "Failure", "scopes": ["a", 'say "b"']}],
    }
    assert "onnxruntime " in (folder / "versions.txt").read_text()
    assert "ZeroDivisionError: nothing divides by zero" in (folder / "error.txt").read_text()


def test_reproducers_do_not_overwrite_each_other(tmp_path):
    for _ in range(3):
        with pytest.raises(OptimizationError):
            run([Reproduce(tmp_path / "again")], "Failure")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["again", "again-2", "again-3"]


def test_a_refused_request_is_no_failure(tmp_path):
    with pytest.raises(UsageError):
        run([Reproduce(tmp_path / "again")], "Refusal")
    assert not list(tmp_path.iterdir())


def test_a_reproducer_that_cannot_be_written_hides_nothing(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OptimizationError, match="ZeroDivisionError") as failure:
        run([Reproduce(tmp_path / "file" / "again")], "Failure")
    assert "no reproducer could be written" in failure.value.__cause__.__notes__[0]


def test_timing_tree():
    ticks = count()
    timing = Timing([Snapshots()], clock=lambda: float(next(ticks)))
    run([timing], "Relu", "Nothing")
    spent = timing.passes["append"]
    assert spent.runs == 2
    assert spent.parts == {"snapshots": 4.0}  # two calls per pass, one second each
    assert spent.total == pytest.approx(4, abs=0.1)
    lines = str(timing).splitlines()
    assert lines[0].startswith("total")
    assert "append (2 runs)" in lines[1]
    assert lines[2].split()[0] == "itself"
    assert lines[3].split()[:2] == ["snapshots", "4.000"]


def test_timing_of_nothing():
    assert str(Timing()).split() == ["total", "0.000", "s", "0.0", "%"]


def test_timing_hands_failures_on(tmp_path):
    with pytest.raises(OptimizationError):
        run([Timing([Reproduce(tmp_path / "again")])], "Failure")
    assert (tmp_path / "again").is_dir()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_keeps_to_one_line():
    terminal = Terminal()
    run([Progress(terminal)], "Relu", "Nothing")
    text = terminal.getvalue()
    assert "\n" not in text
    assert "1. append" in text
    assert "2. append" in text
    assert text.endswith("\r\x1b[K")


def test_progress_clears_the_line_after_a_failure():
    terminal = Terminal()
    with pytest.raises(OptimizationError):
        run([Progress(terminal)], "Failure")
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_progress_is_silent_elsewhere():
    stream = io.StringIO()
    run([Progress(stream)], "Relu")
    assert stream.getvalue() == ""


OPS = ["Relu", "Nothing", "Sigmoid", "Tanh", "Abs", "Neg"]


@pytest.mark.parametrize("culprit", ["Relu", "Sigmoid", "Tanh", "Abs", "Neg"])
def test_bisection_finds_the_culprit(culprit):
    snapshots = Snapshots()
    run([snapshots], *OPS)
    asked = []

    def good(graph: Graph) -> bool:
        asked.append(1)
        return all(n.op != culprit for n in graph.nodes)

    found = first_bad(snapshots.kept, good)
    assert f"op={culprit}" in found.after
    assert len(asked) <= 5  # both ends and log2(5) between


def test_bisection_without_a_culprit():
    snapshots = Snapshots()
    run([snapshots], *OPS)
    assert first_bad(snapshots.kept, lambda _: True) is None
    assert first_bad(snapshots.kept, lambda _: False).after == ""


def test_snapshots_do_not_follow_later_changes():
    snapshots = Snapshots()
    run([snapshots], "Relu", "Sigmoid")
    assert [[n.op for n in s.graph.nodes] for s in snapshots.kept] == [
        ["Gemm"],
        ["Gemm", "Relu"],
        ["Gemm", "Relu", "Sigmoid"],
    ]
    weights = [s.graph.initializers()[0]._values for s in snapshots.kept]
    assert weights[0] is weights[2]


def test_progress_needs_no_stream():
    """Standard error may be closed."""
    run([Progress(None)], "Relu")

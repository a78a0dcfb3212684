"""Pipeline text: what it says, that it round-trips, and where it is wrong."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxopt import Context, Graph, Pass, UsageError, option
from onnxopt.pipeline import Entry, Pipeline, Stage, parse, resolve, with_option

words = st.from_regex(r"[A-Za-z_][\w.*-]*", fullmatch=True)
scalars = st.one_of(
    st.booleans(), st.none(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(), words
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4), max_leaves=6)
entries = st.builds(Entry, words, st.dictionaries(words, values, max_size=4))
pipelines = st.lists(entries, min_size=1, max_size=4).map(lambda e: Pipeline(tuple(e)))


@settings(deadline=None)
@given(pipelines)
def test_round_trip(pipeline):
    """Types survive as well: `1`, `1.0`, `true`, `"1"` and `"true"` are five different values."""

    def kinds(value):
        return [kinds(v) for v in value] if isinstance(value, list) else type(value)

    again = parse(str(pipeline))
    assert again == pipeline
    for before, after in zip(pipeline.entries, again.entries, strict=True):
        assert [kinds(v) for v in before.options.values()] == [kinds(v) for v in after.options.values()]


@settings(deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(UsageError):
        parsed = parse(text)
        assert parse(str(parsed)) == parsed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prune", [("prune", {})]),
        (" prune , quantize ", [("prune", {}), ("quantize", {})]),
        ("prune{}", [("prune", {})]),
        ('prune{ratio=0.3, scope=[back, "x y"]}', [("prune", {"ratio": 0.3, "scope": ["back", "x y"]})]),
        ("p{a=1 b=2}", [("p", {"a": 1, "b": 2})]),
        ("p{fast}", [("p", {"fast": True})]),
        ("p{a=-1, b=1e-3, c=.5, d=none, e=false}", [("p", {"a": -1, "b": 1e-3, "c": 0.5, "d": None, "e": False})]),
        ('p{a="1", b="none", c="x\\"y\\\\z\\n"}', [("p", {"a": "1", "b": "none", "c": 'x"y\\z\n'})]),
        ("p{scope=[model.22/*, /head/Conv]}", [("p", {"scope": ["model.22/*", "/head/Conv"]})]),
        ("p{a=[]}", [("p", {"a": []})]),
    ],
)
def test_reading(text, expected):
    assert [(e.name, e.options) for e in parse(text).entries] == expected


@pytest.mark.parametrize(
    ("text", "problem", "place"),
    [
        ("", "expected the name of a pass", 0),
        ("prune,", "expected the name of a pass", 6),
        ("prune,,quantize", "expected the name of a pass, found ','", 6),
        ("prune quantize", "expected ',' or the end, found 'quantize'", 6),
        ("prune{ratio=0.3", "'}' is missing", 15),
        ("prune{ratio=}", "expected a value, found '}'", 12),
        ("prune{=3}", "expected the name of an option, found '='", 6),
        ("prune{a=[1,2}", "expected a value, found '}'", 12),
        ("prune{a=[1,2", "']' is missing", 12),
        ("prune{a=1,a=2}", "option a is given twice", 11),
        ("prune{a=#}", "'#' is not expected here", 8),
        ('prune{a="open}', "'\"' is not expected here", 8),
    ],
)
def test_errors_show_the_place(text, problem, place):
    with pytest.raises(UsageError) as refusal:
        parse(text)
    first, shown, caret = str(refusal.value).split("\n")
    assert problem in first
    assert shown == f"  {text}"
    assert caret.index("^") - 2 == place


class Cut(Pass):
    """Test pass."""

    name = "cut"
    share: float = option(default=0.5, help="Share.", low=0, high=1)
    where: tuple[str, ...] = option(default=(), help="Names.")
    limit: int | None = option(default=None, help="Limit.")

    def run(self, graph: Graph, context: Context) -> bool:
        return False


PLUGIN = """
from onnxopt import Pass, option
from onnxopt.registry import NamedPipeline

class Cut(Pass):
    \"\"\"Test pass.\"\"\"
    name = "cut"
    share: float = option(default=0.5, help="Share.", low=0, high=1)
    def run(self, graph, context):
        return False

BOTH = NamedPipeline("both", "Two.", "cut{share=0.25},eliminate-dead", {"much": "cut.share"})
LOOP = NamedPipeline("loop", "Again.", "cut,eliminate-dead", repeat=7)
OUTER = NamedPipeline("outer", "Nested.", "both,loop", {"much": "both.much"})
"""


@pytest.fixture
def plugin(distribute):
    points = {n: f"pipeline_plugin:{n.upper()}" for n in ("both", "loop", "outer")}
    groups = {"onnxopt.passes": {"cut": "pipeline_plugin:Cut"}, "onnxopt.pipelines": points}
    distribute("pipeline-plugin", groups, pipeline_plugin=PLUGIN)


def outline(stages: list[Stage]) -> list[tuple[str, list[tuple[list[str], int]]]]:
    return [(s.text, [([p.name for p in step.passes], step.repeat) for step in s.steps]) for s in stages]


@pytest.mark.usefixtures("plugin")
def test_resolving_passes():
    stages = resolve("cut{share=0.1}, eliminate-dead")
    assert outline(stages) == [("cut{share=0.1}", [(["cut"], 1)]), ("eliminate-dead", [(["eliminate-dead"], 1)])]
    assert stages[0].passes[0].share == 0.1


@pytest.mark.usefixtures("plugin")
def test_resolving_a_named_pipeline():
    (stage,) = resolve("both")
    assert outline([stage]) == [("both", [(["cut"], 1), (["eliminate-dead"], 1)])]
    assert stage.passes[0].share == 0.25
    assert resolve("both{much=0.75}")[0].passes[0].share == 0.75


@pytest.mark.usefixtures("plugin")
def test_resolving_nested_pipelines():
    (stage,) = resolve("outer{much=1}")
    assert outline([stage]) == [
        ("outer{much=1}", [(["cut"], 1), (["eliminate-dead"], 1), (["cut", "eliminate-dead"], 7)])
    ]
    assert stage.passes[0].share == 1.0


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("cot", "unknown pass 'cot'; did you mean 'cut'"),
        ("cut{shore=1}", "cut: unknown option 'shore'; did you mean 'share'"),
        ("cut{share=2}", "cut: share=2.0 is above 1"),
        ("cut{share=much}", "cut: option share takes a number, not 'much'"),
        ("both{mush=1}", "both: unknown option 'mush'; did you mean 'much'"),
        ("loop{much=1}", "loop: unknown option 'much'; it takes none"),
        ("both{much=2}", "cut: share=2.0 is above 1"),
    ],
)
def test_what_does_not_resolve(text, problem):
    with pytest.raises(UsageError, match=problem):
        resolve(text)


@pytest.mark.usefixtures("plugin")
def test_resolving_what_python_gives():
    step = Cut(share=0.1, where=("a", "b"))
    stages = resolve([step, "cut,eliminate-dead"])
    assert [s.text for s in stages] == ["cut{share=0.1, where=[a, b]}", "cut", "eliminate-dead"]
    assert stages[0].passes == [step]
    assert resolve(parse("cut"))[0].text == "cut"


def test_an_option_may_stand_for_several_that_take_the_same_value():
    passes = resolve("quantize{high_precision=fp16}")[0].passes
    chosen = {p.name: p.precision for p in passes if p.name in {"upgrade-opset", "convert-fp16"}}
    assert chosen == {"upgrade-opset": "fp16", "convert-fp16": "fp16"}


def test_an_option_is_set_on_every_entry_of_a_name():
    text = "quantize{a=1},prune,quantize{high_precision=fp32}"
    assert str(with_option(text, "quantize", "high_precision", "fp16")) == (
        "quantize{a=1, high_precision=fp16},prune,quantize{high_precision=fp16}"
    )
    with pytest.raises(UsageError, match="an option of quantize, which is not in 'prune'"):
        with_option("prune", "quantize", "high_precision", "fp16")

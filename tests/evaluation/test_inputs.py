"""Sizes for open dimensions."""

import numpy as np
import onnx.parser
import pytest

from onnxopt.errors import UsageError
from onnxopt.evaluation.inputs import fill_batch, parse_input_shapes, resolve_inputs
from onnxopt.graph import Graph


def model(signature: str, body: str = "y = Relu (x)", opset: int = 17) -> Graph:
    return Graph.from_proto(
        onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> {signature} {{ {body} }}')
    )


def shapes_of(graph: Graph, **arguments) -> list[tuple[int, ...]]:
    return [spec.shape for spec in resolve_inputs(graph, **arguments)[0]]


def test_fixed_sizes_are_taken_without_a_word():
    specs, notes = resolve_inputs(model("g (float[2,3,8,8] x) => (float[2,3,8,8] y)"))
    assert [str(spec) for spec in specs] == ["x: float32[2, 3, 8, 8]"]
    assert notes == []


def test_the_first_axis_of_a_signal_is_the_batch():
    assert shapes_of(model("g (float[n,16000,1] x) => (float[n,16000,1] y)")) == [(1, 16000, 1)]
    assert shapes_of(model("g (float[h,w,1] x) => (float[h,w,1] y)")) == [(224, 224, 1)]


def test_the_batch_of_one_input_is_the_batch_of_another():
    graph = model(
        "g (float[n,128] x, float[2,n,128] s) => (float[n,128] y, float[2,n,128] t)", "y = Abs (x) t = Abs (s)"
    )
    assert shapes_of(graph) == [(1, 128), (2, 1, 128)]


def test_a_height_is_no_batch():
    graph = model("g (float[1,3,h,w] x, float[h,w] m) => (float[1,3,h,w] y)", "y = Mul (x, m)")
    assert shapes_of(graph)[0] == (1, 3, 224, 224)
    assert shapes_of(model("g (float[n,3,n,n] x) => (float[n,3,n,n] y)"))[0][1:] == (3, 224, 224)


def test_a_fixed_height_chooses_among_the_usual_sizes():
    assert shapes_of(model("g (float[n,3,48,w] x) => (float[n,3,48,w] y)")) == [(1, 3, 48, 320)]
    assert shapes_of(model("g (float[n,3,h,640] x) => (float[n,3,h,640] y)")) == [(1, 3, 640, 640)]


def test_an_open_batch_is_one():
    graph = model("g (float[n,3,8,8] x) => (float[n,3,8,8] y)")
    specs, notes = resolve_inputs(graph)
    assert specs[0].shape == (1, 3, 8, 8)
    assert notes == ["input 'x' [n, 3, 8, 8] is run at 1x3x8x8: the batch is 1"]
    assert resolve_inputs(graph, batch=5)[1] == ["input 'x' [n, 3, 8, 8] is run at 5x3x8x8: the batch is 5"]


@pytest.mark.parametrize("imgsz", ["[96, 160]", "(96, 160)"])
def test_metadata_gives_the_size(imgsz):
    graph = model("g (float[n,3,h,w] x) => (float[n,3,h,w] y)")
    graph.set_metadata("imgsz", imgsz)
    specs, notes = resolve_inputs(graph)
    assert specs[0].shape == (1, 3, 96, 160)
    assert "imgsz" in notes[0]


def test_unreadable_metadata_is_passed_over():
    graph = model("g (float[n,3,h,w] x) => (float[n,3,h,w] y)")
    assert shapes_of(graph, metadata={"imgsz": "large"}) == [(1, 3, 224, 224)]


def test_the_first_size_that_runs_is_taken():
    graph = model(
        "g (float[n,3,h,w] x) => (float[n,15360] y) <int64[2] s = {1, 15360}, int64[2] k = {1, 1}>",
        "m = ReduceMean <axes = [1]> (x) \n y = Reshape (m, s)",
    )
    specs, notes = resolve_inputs(graph)
    assert specs[0].shape == (1, 3, 48, 320)
    assert "first usual size at which the model runs" in notes[0]


def test_no_size_runs():
    graph = model("g (float[n,3,h,w] x) => (float[7] y) <int64[1] s = {7}>", "y = Reshape (x, s)")
    with pytest.raises(UsageError, match=r"none of the usual sizes \(1x3x224x224, 1x3x640x640.*--input-shape"):
        resolve_inputs(graph)


def test_operators_of_other_runtimes_are_not_tried():
    text = (
        '<ir_version: 8, opset_import: ["" : 17, "there" : 1]> g (float[n,3,h,w] x) => (float y) { y = there.Op (x) }'
    )
    specs, notes = resolve_inputs(Graph.from_proto(onnx.parser.parse_model(text)))
    assert specs[0].shape == (1, 3, 224, 224)
    assert "not tried: ONNX Runtime cannot load the model" in notes[0]


def test_channels_last():
    assert shapes_of(model("g (float[n,h,w,3] x) => (float[n,h,w,3] y)")) == [(1, 224, 224, 3)]


def test_an_override_fixes_its_symbols_elsewhere():
    graph = model("g (float[n,3,h,w] x, float[n,1,h,w] m) => (float[n,3,h,w] y)", "y = Mul (x, m)")
    assert shapes_of(graph, overrides={"x": (2, 3, 10, 12)}) == [(2, 3, 10, 12), (2, 1, 10, 12)]


def test_anonymous_dimensions_are_not_tied_together():
    graph = model('g (float["?",3,"?","?"] x) => (float["?",3,"?","?"] y)')
    assert shapes_of(graph, overrides={"x": (2, 3, 10, 12)}) == [(2, 3, 10, 12)]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ({"z": (1,)}, "no input 'z'; did you mean|no input 'z'; known: x"),
        ({"x": (1, 3, 8)}, r"has 4 dimensions \[n, 3, 8, 8\], not 3 \(1x3x8\)"),
        ({"x": (1, 3, 9, 9)}, r"fixed at \[n, 3, 8, 8\]; it cannot be run at 1x3x9x9"),
    ],
)
def test_overrides_that_do_not_fit(override, problem):
    with pytest.raises(UsageError, match=problem):
        resolve_inputs(model("g (float[n,3,8,8] x) => (float[n,3,8,8] y)"), override)


def test_text_inputs_are_refused():
    with pytest.raises(UsageError, match="no tensor of numbers"):
        resolve_inputs(model("g (string[n] x) => (string[n] y)", "y = Identity (x)"))


def test_parsing():
    graph = model("g (float[n,3,h,w] x) => (float[n,3,h,w] y)")
    assert parse_input_shapes(["x:1x3x32x64"], graph) == {"x": (1, 3, 32, 64)}
    assert parse_input_shapes(["1x3x32x64"], graph) == {"x": (1, 3, 32, 64)}


@pytest.mark.parametrize("text", ["x:1,3", "x:", "x:0x3", "x:1x-3", "q:1x3"])
def test_parsing_errors(text):
    with pytest.raises(UsageError, match=r"of the form|no input 'q'"):
        parse_input_shapes([text], model("g (float[n,3,h,w] x) => (float[n,3,h,w] y)"))


def test_parsing_needs_a_name_where_there_are_two():
    graph = model("g (float[n] x, float[n] m) => (float[n] y)", "y = Mul (x, m)")
    with pytest.raises(UsageError, match="does not say of which input; the model has x, m"):
        parse_input_shapes(["4"], graph)
    with pytest.raises(UsageError, match="given twice"):
        parse_input_shapes(["x:4", "x:5"], graph)


def test_a_sample_fills_the_batch():
    graph = model("g (float[3,2] x, float[1,2] m, float s) => (float[3,2] y)", "a = Mul (x, m)  y = Mul (a, s)")
    specs, _ = resolve_inputs(graph)
    feeds = {"x": np.array([[1, 2]], np.float32), "m": np.ones((1, 2), np.float32), "s": np.float32(2)}
    full = fill_batch(feeds, specs)
    assert full["x"].tolist() == [[1, 2]] * 3
    assert full["m"] is feeds["m"]
    assert full["s"] is feeds["s"]


class TestTooLarge:
    """More than any machine has, and said before anything is made."""

    def test_of_the_file(self):
        graph = model("g (float[100000000000,3,64,64] x) => (float[100000000000,3,64,64] y)")
        with pytest.raises(UsageError, match=r"input 'x' needs 4577636\.72 GiB at 1.*x3x64x64.* smaller batch"):
            resolve_inputs(graph)

    @pytest.mark.parametrize("shape", ["100000000000x3x64x64", "1x100000000000x3000x64"])
    def test_of_the_user(self, shape):
        graph = model("g (float[n,c,h,w] x) => (float[n,c,h,w] y)")
        with pytest.raises(UsageError, match="give a smaller --input-shape"):
            resolve_inputs(graph, parse_input_shapes([shape], graph))

    def test_of_many_samples_at_once(self):
        with pytest.raises(UsageError, match="run fewer samples at once"):
            resolve_inputs(model("g (float[n,3,8,8] x) => (float[n,3,8,8] y)"), batch=10**12)

    def test_before_a_size_is_tried(self):
        with pytest.raises(UsageError, match=r"needs .* GiB at 100000000000x3x224x224"):
            resolve_inputs(model("g (float[100000000000,3,h,w] x) => (float[100000000000,3,h,w] y)"))

    @pytest.mark.parametrize("size", [str(2**63), "9" * 20, "9" * 5000])
    def test_a_dimension_is_an_int64(self, size):
        graph = model("g (float[n,3,8,8] x) => (float[n,3,8,8] y)")
        with pytest.raises(UsageError, match="a dimension is at most 9223372036854775807"):
            parse_input_shapes([f"{size}x3x8x8"], graph)

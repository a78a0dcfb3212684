"""Models that are broken or that ONNX Runtime cannot run: one sentence, the right exit code, nothing left behind."""

from pathlib import Path

import pytest

from onnxopt import Graph, load, save
from onnxopt.testing import parse_graph

TESTDATA = Path(__file__).parents[2] / "testdata"
CLASSIFIER = TESTDATA / "patches_classifier.onnx"


def custom_net(text, domain="acme"):
    """The small classifier with its second activation of a foreign kind."""
    graph = parse_graph(text)
    graph.nodes[3].op, graph.nodes[3].domain = "Swirl", domain
    if domain:
        graph.set_opset(domain, 1)
    return graph


def refused(result, folder: Path, code: int = 2):
    assert result.exit_code == code, result.output
    assert sorted(file.name for file in folder.iterdir()) == ["m.onnx"]
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("domain", ["acme", None])
@pytest.mark.parametrize("passes", ["simplify", "prune{ratio=0.5, align=4}"])
def test_custom_operators_are_carried_through(onnxopt, store, net_text, tmp_path, passes, domain):
    file = store("m.onnx", custom_net(net_text, domain))
    result = onnxopt("run", file, "--passes", passes)
    assert result.exit_code == 0, result.output
    assert "carried through untouched" in result.stderr
    assert "not measured" in result.stderr
    assert [n.op for n in load(tmp_path / "m.opt.onnx").nodes if n.op == "Swirl"]


def test_an_operator_that_onnx_does_not_have_is_called_that(onnxopt, store, net_text):
    strange, foreign = (store(f"{d}.onnx", custom_net(net_text, d)) for d in ("", "acme"))
    says = "ONNX has no operator Swirl: such a model runs only where a plug-in has that name"
    assert says in onnxopt("run", strange, "--passes", "simplify").stderr
    assert "ONNX has no operator" not in onnxopt("run", foreign, "--passes", "simplify").stderr


@pytest.mark.parametrize(
    "words",
    [
        ("explain",),
        ("profile",),
        ("bench",),
        ("eval", "--data", TESTDATA / "patches" / "val.csv", "--preprocess", "imagenet", "--metric", "top1"),
        ("eval", CLASSIFIER, "--data", TESTDATA / "patches" / "val.csv", "--preprocess", "imagenet", "--reference"),
        ("compare", CLASSIFIER),
        ("bisect", "--passes", "fold-constants", "--min-sqnr", "30"),
    ],
    ids=lambda words: words[0],
)
def test_what_a_runtime_does_not_take_is_named(onnxopt, tmp_path, words):
    classifier = load(CLASSIFIER)
    node = next(classifier.nodes_of("Gemm"))
    node.op, node.name = "Swirl", "odd_one"
    file = tmp_path / "m.onnx"
    save(classifier, file)
    command, *rest = words
    last = rest[:1] == [CLASSIFIER]
    message = refused(onnxopt(command, *(() if last else (file,)), *rest, *((file,) if last else ())), tmp_path)
    assert message.endswith(
        "m.onnx: ONNX Runtime cannot load the model: "
        f"Swirl 'odd_one': ai.onnx has no such operator in opset {classifier.opset}"
    )


@pytest.mark.parametrize(("passes", "who"), [("quantize", "calibrate"), ("prune{align=4}", "prune without a budget")])
def test_passes_that_must_run_a_custom_operator_say_so(onnxopt, store, net_text, tmp_path, passes, who):
    file = store("m.onnx", custom_net(net_text))
    message = refused(onnxopt("run", file, "--passes", passes), tmp_path)
    assert who in message
    assert "acme.Swirl" in message


def test_a_model_that_did_not_run_before_is_no_pass_s_fault(onnxopt, store, net_text, tmp_path):
    graph = parse_graph(net_text)
    weights = graph.nodes[2].inputs[1]
    weights.values = weights.values[:, :5]
    message = refused(onnxopt("run", store("m.onnx", graph), "--passes", "simplify"), tmp_path)
    assert "m.onnx: ONNX Runtime cannot run the model" in message
    assert "Conv_2" in message
    assert "ONNXRuntimeError" not in message


def test_an_empty_dimension(onnxopt, store, tmp_path):
    file = store("m.onnx", "(float[0,3] x) => (float[0,3] y) { y = Relu (x) }")
    assert "'x' [0, 3] has a dimension of 0" in refused(onnxopt("run", file, "--passes", "simplify"), tmp_path)


def test_nan_of_the_model_s_own_is_not_handed_on(onnxopt, store, tmp_path):
    file = store("m.onnx", "(float[1,4] x) => (float[1,4] y) { a = Neg (x) b = Log (a) y = Identity (b) }")
    message = refused(onnxopt("run", file, "--passes", "eliminate-identity"), tmp_path, code=1)
    assert "output 'y'" in message
    assert "--keep-anyway" in message


@pytest.mark.parametrize(
    "text",
    [
        "(float[1,3,8,8] x, bool flag) => (float[1,3,8,8] y) { y = Where (flag, x, x) }",
        "(uint8[1,3,8,8] x) => (float[1,3,8,8] y) { y = Cast <to = 1> (x) }",
        "(float[1,3,8,8] x) => (seq(float) y) { a = Relu (x) y = SplitToSequence <axis = 1> (a) }",
    ],
    ids=["boolean without axes", "bytes", "sequence"],
)
def test_unusual_inputs_and_outputs_run(onnxopt, store, text):
    result = onnxopt("run", store("m.onnx", text), "--passes", "simplify")
    assert result.exit_code == 0, result.output


def test_a_first_layer_that_sees_nan_is_no_hint(onnxopt, store):
    """The range of made-up pictures is guessed from the first Conv; one that sees NaN gives no guess, silently."""
    graph: Graph = parse_graph(
        "(float[1,3,8,8] x) => (float[1,4,8,8] y) <float[4,3,1,1] w> { n = Neg (x) l = Log (n) y = Conv (l, w) }"
    )
    result = onnxopt("run", store("m.onnx", graph), "--passes", "simplify", "--keep-anyway")
    assert result.exit_code == 0, result.output


def test_a_fixed_batch_is_filled(onnxopt, store, net_text):
    file = store("m.onnx", net_text.replace("float[N,3,8,8]", "float[4,3,8,8]").replace("float[N,5]", "float[4,5]"))
    result = onnxopt("run", file, "--passes", "prune,quantize", "--verify", "full")
    assert result.exit_code == 0, result.output
    assert "top-1 agreement" in result.stderr

"""The oracles of pruning on real models: those of the shared folder beside the repository, and PP-OCR where installed.

Graphs of the zoo are true exports, as they are, filled with random weights under which outputs depend on the input.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from mask_equivalence import numbers_read, permuted, silenced

from onnxopt import Graph, load
from onnxopt.analysis.channels import ChannelGroups, Policy, cut, groups_text, masked
from onnxopt.analysis.shapes import Shapes, infer
from onnxopt.evaluation.decoding import Reader
from onnxopt.graph import Array, Node, Tensor
from onnxopt.runtime.ort import OrtSession

SHARED = Path(__file__).parents[3] / "shared"
MODELS = sorted(p.stem for p in SHARED.glob("models/*.onnx"))
ZOO = sorted(p.stem for p in SHARED.glob("zoo/*.onnx"))
OCR = ("ch_PP-OCRv4_det_infer", "ch_PP-OCRv4_rec_infer", "ch_ppocr_mobile_v2.0_cls_infer")
SIZES = {OCR[0]: (1, 3, 160, 160), OCR[1]: (1, 3, 48, 160), OCR[2]: (1, 3, 48, 192)}
NORMALIZED = (
    "convnext_tiny",
    "vit_tiny_patch16_224",
    "deit_tiny_patch16_224",
    "mobilevit_xs",
    "rtdetr-l",
    "swin_tiny_patch4_window7_224",
    OCR[1],
)
FEW = ("resnet50", "shufflenet_v2_x1_0", "yolo11n", "yolo12n", "vit_tiny_patch16_224")
WIDTH, HEADS = Policy(normalized_width=True), Policy(whole_blocks=True)
CASES = [
    *((name, Policy(), removed) for name in (*MODELS, *OCR, *ZOO) for removed in (0.1, 0.5)),
    *((name, WIDTH, 0.5) for name in NORMALIZED if name in ZOO or name in OCR),
    *((name, HEADS, 0.5) for name in FEW if name in ZOO),
]
SIGMOID_ROUNDING = 2e-7  # of ONNX Runtime, absolute
LEAST, MOST = 2e-5, 1e-2  # of the largest output: what rounding may change
SLACK = 5  # times what the runtime's own optimizations change in the original
SELECTING = frozenset({"Gather", "GatherElements", "GatherND"})


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder for graphs of the zoo with weights."""
    return tmp_path_factory.mktemp("zoo")


def find_model(name: str, folder: Path) -> Path:
    """Path of a model, filled with random weights where the zoo holds only its graph."""
    if name in OCR:
        spec = importlib.util.find_spec("rapidocr_onnxruntime")
        if spec is None or spec.origin is None:
            pytest.skip("rapidocr-onnxruntime is not installed")
        return Path(spec.origin).parent / "models" / f"{name}.onnx"
    if name in MODELS:
        return SHARED / "models" / f"{name}.onnx"
    if not (folder / f"{name}.onnx").exists():
        subprocess.run([sys.executable, SHARED / "zoo" / "fill.py", folder, name], check=True, capture_output=True)
    return folder / f"{name}.onnx"


def comparable(graph: Graph) -> Graph:
    """Let a graph return what goes into a last Sigmoid or a selection of the best.

    A saturated output would agree with anything; equal scores are sorted by rounding.
    """
    last = graph.producer(graph.outputs[0])
    if last is not None and last.op == "Sigmoid":
        return _returning(graph, [last.inputs[0]])
    best = next((n for n in graph.nodes if n.op == "TopK"), None)
    return graph if best is None else _returning(graph, [best.inputs[0], *_selected(graph, best)])


def _selected(graph: Graph, best: Node) -> list[Tensor]:
    """What is picked by the places that a TopK found."""
    places, found = {id(best.outputs[1])}, []
    for node in graph.nodes:
        if any(id(t) in places for t in node.inputs):
            if node.op in SELECTING and id(node.inputs[0]) not in places:
                found.append(node.inputs[0])
            else:
                places |= {id(t) for t in node.outputs}
    dtypes = infer(graph)[1]
    return list({id(t): t for t in found if t.name != best.outputs[0].name and dtypes[t.name] == np.float32}.values())


def _returning(graph: Graph, tensors: list[Tensor]) -> Graph:
    shapes = Shapes(*infer(graph))
    for tensor in tensors:
        tensor.dtype, tensor.shape = np.dtype(np.float32), [None] * (shapes.rank(tensor) or 0)
    graph.ir.outputs = [t for t in tensors if graph.constant(t) is None]
    return graph


def outputs(graph: Graph, feeds: list[dict[str, Array]], *, optimized: bool = False) -> list[dict[str, Array]]:
    """Outputs per input; boxes and scores in one tensor count apart."""
    session = OrtSession(graph.to_proto(), optimized=optimized)
    return [Reader(graph.metadata).parts(session.run(f), f) for f in feeds]


def random_pictures(graph: Graph, name: str) -> list[dict[str, Array]]:
    (entry,) = graph.inputs
    fallback = SIZES.get(name, (1, 3, 224, 224))
    shape = [d if isinstance(d, int) and d > 0 else fallback[i] for i, d in enumerate(entry.shape or ())]
    generator = np.random.default_rng(0)
    noise = [np.float32(scale) * generator.random(shape, np.float32) for scale in (0.5, 1.0)]
    return [{entry.name: value} for value in noise]


def difference(got: list[dict[str, Array]], wanted: list[dict[str, Array]]) -> float:
    """Largest difference as a share of the largest value of that output, beyond the rounding of a Sigmoid near 0."""
    assert all(a.keys() == b.keys() for a, b in zip(got, wanted, strict=True))
    pairs = [(a[name], value) for a, b in zip(got, wanted, strict=True) for name, value in b.items()]
    assert all(a.shape == b.shape and np.isfinite(b).all() for a, b in pairs)
    return max(float((np.abs(a - b).max() - SIGMOID_ROUNDING) / max(np.abs(b).max(), 1e-30)) for a, b in pairs)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "policy", "removed"), CASES)
def test_oracles(name: str, policy: Policy, removed: float, filled: Path) -> None:
    graph = comparable(load(find_model(name, filled)))
    feeds = random_pictures(graph, name)
    original = outputs(graph, feeds)
    first, second = original
    assert all(np.abs(first[k] - second[k]).max() > 1e-2 * np.abs(first[k]).max() for k in first)
    allowed = max(LEAST, SLACK * difference(outputs(graph, feeds, optimized=True), original))
    assert allowed <= MOST
    found = ChannelGroups.of(graph, policy=policy)
    generator = np.random.default_rng(1)
    choice = {
        g.name: sorted(generator.permutation(g.size)[: max(1, round(g.size * (1 - removed)))].tolist())
        for g in found.free
    }
    assert sum(len(choice[g.name]) < g.size for g in found.free) >= 5
    kept = found.kept(choice)
    assert_valid(after := cut_copy(graph, found, choice))
    assert numbers_read(after) < numbers_read(graph)
    assert difference(outputs(after, feeds), outputs(masked(graph, found.relations, kept), feeds)) <= allowed
    if removed == 0.5:
        assert difference(outputs(permuted(graph, found, 0), feeds), original) <= allowed
        if not found.relations.statistics:
            quiet = silenced(graph, found, kept)
            assert difference(outputs(cut_copy(quiet, found, choice), feeds), outputs(quiet, feeds)) <= allowed


def cut_copy(graph: Graph, found: ChannelGroups, choice: dict[str, list[int]]) -> Graph:
    after = graph.copy()
    cut(after, found.relations, found.kept(choice))
    return after


def assert_valid(graph: Graph) -> None:
    model = graph.to_proto()
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


@pytest.mark.slow
def test_30_every_group_of_yolo11n_is_explained(filled: Path) -> None:
    found = ChannelGroups.of(load(find_model("yolo11n", filled)))
    text = groups_text(found.groups)
    assert text.startswith(f"{len(found.free)} of {len(found.groups)} groups are free")
    for group in found.groups:
        state = "free" if group.fixed is None else f"fixed: {group.fixed}"
        (line,) = [t for t in text.splitlines() if t.startswith(f"{group.name}: ")]
        assert line.startswith(f"{group.name}: {group.channels} channels")
        assert line.endswith(state)
        assert all(m.node in text for m in group.members)
    fixed = {g.name: g.fixed for g in found.groups if g.fixed}
    assert {name.split("/")[2] for name in fixed} == {"cv2.0", "cv3.0", "dfl"}  # box bins, classes, and their mean
    assert "Softmax '/model.23/dfl/Softmax'" in str(fixed["/model.23/cv2.0/cv2.0.2/Conv"])

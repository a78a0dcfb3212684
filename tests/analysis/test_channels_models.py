"""Mask equivalence on real models: those of the shared folder beside the repository, and PP-OCR where installed."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from mask_equivalence import numbers_read

from onnxopt import Graph, load
from onnxopt.analysis.channels import ChannelGroups, cut, masked
from onnxopt.graph import Array
from onnxopt.runtime.ort import OrtSession

SHARED = Path(__file__).parents[3] / "shared"
MODELS = ("mobilenet_v2_imagenet_bn", "yolox_nano", "yolo11n_random_640")
ZOO = ("resnet50", "densenet121", "shufflenet_v2_x1_0", "squeezenet", "efficientnet_b0", "yolo11n")
OCR = ("ch_PP-OCRv4_det_infer", "ch_ppocr_mobile_v2.0_cls_infer")
SIZES = {OCR[0]: (1, 3, 160, 160), OCR[1]: (1, 3, 48, 192)}


def find_model(name: str, folder: Path) -> Path:
    """Path of a model, filled with random weights where the zoo holds only its graph."""
    if name in OCR:
        spec = importlib.util.find_spec("rapidocr_onnxruntime")
        if spec is None or spec.origin is None:
            pytest.skip("rapidocr-onnxruntime is not installed")
        return Path(spec.origin).parent / "models" / f"{name}.onnx"
    source = SHARED / ("models" if name in MODELS else "zoo") / f"{name}.onnx"
    if not source.exists():
        pytest.skip(f"there is no {source}")
    if name in ZOO:
        subprocess.run([sys.executable, SHARED / "zoo" / "fill.py", folder, name], check=True, capture_output=True)
        return folder / f"{name}.onnx"
    return source


def without_last_sigmoid(graph: Graph) -> Graph:
    """Let a graph that ends in a Sigmoid return what goes into it: a saturated output would agree with anything."""
    last = graph.producer(graph.outputs[0])
    if last is not None and last.op == "Sigmoid":
        logits = last.inputs[0]
        logits.dtype, logits.shape = np.dtype(np.float32), [None] * 4
        graph.ir.outputs = [logits]
    return graph


def outputs(graph: Graph, feeds: list[dict[str, Array]]) -> list[list[Array]]:
    session = OrtSession(graph.to_proto(), optimized=False)
    return [list(session.run(f).values()) for f in feeds]


def random_pictures(graph: Graph, name: str) -> list[dict[str, Array]]:
    (entry,) = graph.inputs
    fallback = SIZES.get(name, (1, 3, 224, 224))
    shape = [d if isinstance(d, int) and d > 0 else fallback[i] for i, d in enumerate(entry.shape or ())]
    generator = np.random.default_rng(0)
    noise = [generator.standard_normal(shape).astype(np.float32) for _ in range(2)]
    return [{entry.name: np.float32(scale) * value} for scale, value in zip((0.3, 1.0), noise, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("removed", [0.1, 0.5])
@pytest.mark.parametrize("name", [*MODELS, *OCR, *ZOO])
def test_cut_equals_mask(name: str, removed: float, tmp_path: Path) -> None:
    graph = without_last_sigmoid(load(find_model(name, tmp_path)))
    feeds = random_pictures(graph, name)
    original = outputs(graph, feeds)
    assert all(np.abs(a - b).max() > 1e-2 * np.abs(a).max() for a, b in zip(*original, strict=True))
    found = ChannelGroups.of(graph)
    generator = np.random.default_rng(1)
    choice = {
        g.name: sorted(generator.permutation(g.size)[: max(1, round(g.size * (1 - removed)))].tolist())
        for g in found.free
    }
    assert sum(len(choice[g.name]) < g.size for g in found.free) >= 5
    kept = found.kept(choice)
    wanted = outputs(masked(graph, found.relations, kept), feeds)
    after = graph.copy()
    cut(after, found.relations, kept)
    assert numbers_read(after) < numbers_read(graph)
    onnx.checker.check_model(after.to_proto(), full_check=True)
    for one, other in zip(wanted, outputs(after, feeds), strict=True):
        for a, b in zip(one, other, strict=True):
            assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max()

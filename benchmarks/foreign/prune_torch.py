"""Torch-Pruning, as it comes: `python prune_torch.py NAME RATIO` prints the share of the MACs that it removes.

Runs in an environment with `torch-pruning`, `torchvision`, `timm` and `ultralytics`, where nothing of onnxopt is
installed. It cuts modules of torch and not files, so NAME is that of the exported model's module, with random weights;
class outputs are cut too, as nothing tells it otherwise. MACs are those of its own counter.
"""

import logging
import sys

import timm
import torch
import torch_pruning
import torchvision
import ultralytics
from torch import nn

PICTURE = 224  # pixels; detectors get 640
ALIASES = {"resnext50": "resnext50_32x4d", "squeezenet": "squeezenet1_1"}


def build(name: str) -> tuple[nn.Module, torch.Tensor]:
    """A model by its name, and an input."""
    picture = torch.randn(1, 3, PICTURE, PICTURE)
    known = ALIASES.get(name, name)
    if known in torchvision.models.list_models():
        extra = {"aux_logits": False} if known == "googlenet" else {}
        return torchvision.models.get_model(known, weights=None, **extra), picture
    if timm.is_model(known):
        return timm.create_model(known), picture
    family = ultralytics.RTDETR if known.startswith("rtdetr") else ultralytics.YOLO
    module = known.partition("_")[0].removesuffix("u")  # exports of one module differ in what follows
    return family(f"{module}.yaml").model, torch.randn(1, 3, 640, 640)


def main() -> None:
    """Build, prune, count."""
    logging.disable(logging.CRITICAL)
    name, ratio = sys.argv[1:]
    torch.manual_seed(0)
    model, example = build(name)
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    before, _ = torch_pruning.utils.count_ops_and_params(model, example)
    pruner = torch_pruning.pruner.BasePruner(
        model, example, importance=torch_pruning.importance.MagnitudeImportance(p=2), pruning_ratio=float(ratio)
    )
    pruner.step()
    with torch.no_grad():
        model(example)
    after, _ = torch_pruning.utils.count_ops_and_params(model, example)
    print(1 - after / before)


if __name__ == "__main__":
    main()

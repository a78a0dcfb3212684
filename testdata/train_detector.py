"""Train the small detector of this folder on drawn scenes, and export it to ONNX.

Needs torch (CPU is enough), about twelve minutes on one core. The file has the form that Ultralytics exports: input
``images``, float32 [1, 3, 96, 96], RGB in 0..1; output ``output0``, float32 [1, 4 + classes, cells], rows of
cx, cy, w, h in pixels and then one score for each class, to be followed by non-maximum suppression; class names,
stride and size of the picture in the metadata. BatchNormalization is left unfused.

Usage: ``python testdata/train_detector.py [--out FILE] [--pictures N] [--epochs N]``
"""

import argparse
import io
from pathlib import Path

import make_shapes
import numpy as np
import onnx
import torch
from detector_net import BINS, STRIDES, Detector
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

BATCH = 32
SEED = 0
MOST_OBJECTS = 6
SCALE_RANGES = ((0.0, 36.0), (24.0, 96.0))
"""Longer sides, in pixels, of the objects that each stride answers for; between the two, both do."""


def draw(split: str, count: int) -> tuple[Tensor, Tensor]:
    """Draw scenes, through JPEG as the committed ones are.

    Returns:
        The pictures, uint8 [count, 3, 96, 96], and their objects, float32 [count, MOST_OBJECTS, 5]: rows of
        class, cx, cy, w, h in pixels, class -1 where there is none.
    """
    pictures = np.empty((count, make_shapes.SCENE_SIZE, make_shapes.SCENE_SIZE, 3), np.uint8)
    objects = np.full((count, MOST_OBJECTS, 5), -1, np.float32)
    for index in range(count):
        drawn = make_shapes.scene(split, index)
        pictures[index] = np.asarray(Image.open(io.BytesIO(make_shapes.jpeg(drawn.pixels))))
        objects[index, : len(drawn.labels), 0] = drawn.labels
        objects[index, : len(drawn.labels), 1:] = drawn.boxes
    return torch.from_numpy(pictures).permute(0, 3, 1, 2), torch.from_numpy(objects)


def augmented(pictures: Tensor, objects: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror, turn and swap the colours of a batch: pictures float32 in 0..1, objects as `draw` gives them."""
    pictures, objects = pictures[:, torch.randperm(3)].float() / 255, objects.clone()
    if torch.rand(()) < 0.5:
        pictures = pictures.flip(3)
        objects[..., 1] = pictures.shape[3] - objects[..., 1]
    if torch.rand(()) < 0.5:
        pictures = pictures.transpose(2, 3)
        objects = objects[..., [0, 2, 1, 4, 3]]
    return pictures.contiguous(memory_format=torch.channels_last), objects


def assign(objects: Tensor, anchors: Tensor, strides: Tensor) -> Tensor:
    """Which object each cell answers for: int64 [n, cells], -1 for none.

    An object is given to the cells of its scale (`SCALE_RANGES`) whose centres lie inside its box and at most
    1.5 strides from its own centre; of several objects a cell takes the smallest.

    Args:
        objects: as `draw` gives them.
        anchors: centres of the cells in pixels, [2, cells].
        strides: strides of the cells in pixels, [cells].
    """
    centre, size = objects[:, :, 1:3, None], objects[:, :, 3:5, None]
    away = (anchors - centre).abs()
    near = ((away < size / 2) & (away < 1.5 * strides)).all(2)
    low, high = (torch.tensor(limits)[(strides == STRIDES[1]).long()] for limits in zip(*SCALE_RANGES, strict=True))
    longer = size.amax(2)
    fits = (longer >= low) & (longer < high) & (objects[:, :, :1] >= 0)
    area = size.prod(2).masked_fill(~(near & fits), torch.inf)
    smallest, which = area.min(1)
    return which.masked_fill(smallest.isinf(), -1)


def iou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union of boxes [n, 4] (cx, cy, w, h), plain and generalized.

    The second subtracts the share of the common hull that neither box covers: H. Rezatofighi et al.,
    "Generalized Intersection over Union", 2019, https://arxiv.org/abs/1902.09630.
    """
    low_a, high_a, low_b, high_b = (box[:, :2] + side * box[:, 2:] for box in (a, b) for side in (-0.5, 0.5))
    common = (torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)).clamp(0).prod(1)
    hull = (torch.maximum(high_a, high_b) - torch.minimum(low_a, low_b)).prod(1)
    union = a[:, 2:].prod(1) + b[:, 2:].prod(1) - common + 1e-7
    plain = common / union
    return plain, plain - (hull - union) / hull


def loss_of(model: Detector, pictures: Tensor, objects: Tensor) -> Tensor:
    """Loss of a batch: classes (targets are the overlap reached so far), boxes, distributions of the sides."""
    sides, scores = model.raw(pictures)
    anchors = model.anchors * model.strides
    owner = assign(objects, anchors, model.strides)
    picture, cell = (owner >= 0).nonzero(as_tuple=True)
    wanted = objects[picture, owner[picture, cell]]
    plain, generalized = iou(model.boxes(sides)[picture, :, cell], wanted[:, 1:])
    targets = torch.zeros_like(scores)
    targets[picture, wanted[:, 0].long(), cell] = plain.detach().clamp(0)
    classes = binary_cross_entropy_with_logits(scores, targets, reduction="sum") / targets.sum().clamp(1)
    reach = torch.cat((wanted[:, 3:], wanted[:, 3:]), 1) / 2
    offset = anchors.T[cell] - wanted[:, 1:3]
    distance = (reach + torch.cat((offset, -offset), 1)) / model.strides[cell, None]
    shares = sides[picture, :, cell].view(-1, 4, BINS)
    return 0.5 * classes + 5 * (1 - generalized).mean() + side_loss(shares, distance)


def side_loss(logits: Tensor, distance: Tensor) -> Tensor:
    """Cross entropy to the two bins around each true distance, weighted by nearness (arXiv 2006.04388, eq. 6).

    Args:
        logits: [n, 4, BINS].
        distance: [n, 4], in strides.
    """
    distance = distance.clamp(0, BINS - 1.01)
    low = distance.floor()
    upper = distance - low
    bins = logits.flatten(0, 1)
    below = cross_entropy(bins, low.long().flatten(), reduction="none")
    above = cross_entropy(bins, low.long().flatten() + 1, reduction="none")
    return (below * (1 - upper.flatten()) + above * upper.flatten()).mean()


def train(pictures: Tensor, objects: Tensor, epochs: int) -> Detector:
    """Train on what `draw` gave; returns the running average of the weights."""
    model = Detector(len(make_shapes.SCENE_CLASSES), make_shapes.SCENE_SIZE).to(memory_format=torch.channels_last)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.998), use_buffers=True)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], weight_decay=0.02)
    steps = len(pictures) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, epochs=epochs, steps_per_epoch=steps, pct_start=0.1)
    for epoch in range(epochs):
        total = 0.0
        for chosen in torch.randperm(len(pictures))[: steps * BATCH].view(steps, BATCH):
            loss = loss_of(model, *augmented(pictures[chosen], objects[chosen]))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 10)
            optimizer.step()
            schedule.step()
            average.update_parameters(model)
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs}: loss {total / steps:.3f}", flush=True)
    trained: Detector = average.module
    return trained.eval()


def export(model: nn.Module, path: Path) -> None:
    """Write the model as ONNX, opset 17, with the metadata that Ultralytics writes too."""
    torch.onnx.export(
        model,
        (torch.zeros(1, 3, make_shapes.SCENE_SIZE, make_shapes.SCENE_SIZE),),
        str(path),
        input_names=["images"],
        output_names=["output0"],
        opset_version=17,
        training=torch.onnx.TrainingMode.PRESERVE,  # EVAL would fuse the normalization into the convolutions
        do_constant_folding=False,
        dynamo=False,
    )
    proto = onnx.load(path)
    metadata = {
        "names": str(dict(enumerate(make_shapes.SCENE_CLASSES))),
        "imgsz": str([make_shapes.SCENE_SIZE, make_shapes.SCENE_SIZE]),
        "stride": str(max(STRIDES)),
        "task": "detect",
    }
    onnx.helper.set_model_props(proto, metadata)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def main() -> None:
    """Draw, train, print the loss on the committed validation scenes, export."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "shapes_detector.onnx")
    parser.add_argument("--pictures", type=int, default=6000)
    parser.add_argument("--epochs", type=int, default=14)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    model = train(*draw("training", options.pictures), options.epochs)
    pictures, objects = draw("val", make_shapes.SCENES["val"])
    with torch.no_grad():
        print(f"loss on the validation scenes: {loss_of(model, pictures / 255, objects):.3f}")
    export(model, options.out)


if __name__ == "__main__":
    main()

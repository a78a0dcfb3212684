"""Train the small residual classifier of this folder on drawn patches, and export it to ONNX.

Needs torch (CPU is enough), about ten minutes on one core. The network has what the optimizer must cope with:
BatchNormalization left unfused, identity and projection shortcuts, a depthwise convolution with ReLU6 (Clip),
a mean over the picture and a Gemm. Input ``input``, float32 [batch, 3, 64, 64], RGB in (x / 255 - mean) / std with
the mean and deviation of ImageNet; output ``logits``, float32 [batch, 10].

Usage: ``python testdata/train_classifier.py [--out FILE] [--pictures N] [--epochs N]``
"""

import argparse
import io
from pathlib import Path

import make_shapes
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
BATCH = 50
SEED = 0


def conv(inside: int, outside: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution that keeps the size (but for the stride), with its normalization."""
    layer = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outside))


class Residual(nn.Module):
    """Two convolutions and a shortcut: the identity, or a projection where size or width change."""

    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        super().__init__()
        self.first = conv(inside, outside, stride=stride)
        self.second = conv(outside, outside)
        keeps = inside == outside and stride == 1
        self.shortcut = nn.Identity() if keeps else conv(inside, outside, kernel=1, stride=stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [n, inside, h, w] to [n, outside, h / stride, w / stride]."""
        return self.relu(self.second(self.relu(self.first(x))) + self.shortcut(x))


class Separable(nn.Module):
    """A depthwise and a pointwise convolution, each with ReLU6."""

    def __init__(self, inside: int, outside: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = conv(inside, inside, stride=stride, groups=inside)
        self.pointwise = conv(inside, outside, kernel=1)
        self.relu = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [n, inside, h, w] to [n, outside, h / stride, w / stride]."""
        return self.relu(self.pointwise(self.relu(self.depthwise(x))))


class Classifier(nn.Module):
    """The network: widths 32, 64, 128; strides 4, 8, 16."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv(3, 32, stride=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
        self.body = nn.Sequential(
            Residual(32, 32),
            Residual(32, 64, stride=2),
            Residual(64, 64),
            Separable(64, 128, stride=2),
            Residual(128, 128),
        )
        self.head = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps pictures [n, 3, 64, 64] to logits [n, classes]."""
        return self.head(self.body(self.stem(x)).mean((2, 3)))


def draw(split: str, count: int) -> tuple[Tensor, Tensor]:
    """Draw pictures, through JPEG as the committed ones are.

    Returns:
        The pictures, uint8 [count, 3, 64, 64], and their classes, int64 [count].
    """
    drawn = [make_shapes.patch(split, index) for index in range(count)]
    pictures = [np.asarray(Image.open(io.BytesIO(make_shapes.jpeg(pixels)))) for pixels, _ in drawn]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2), torch.tensor([label for _, label in drawn])


def normalized(pictures: Tensor) -> Tensor:
    """What the network wants of pictures, uint8 [n, 3, h, w]: float32 with ImageNet's mean and deviation."""
    return (pictures / 255 - MEAN) / STD


def augmented(pictures: Tensor) -> Tensor:
    """Mirror, turn, swap colours, and cut out a window of 56 to 64 pixels: the label stays.

    The windows make the network serve under the usual "resize, then crop 7/8 of the centre" too.
    """
    channels = torch.randperm(3)
    pictures = pictures[:, channels]
    if torch.rand(()) < 0.5:
        pictures = pictures.flip(3)
    if torch.rand(()) < 0.5:
        pictures = pictures.transpose(2, 3)
    size = make_shapes.PATCH_SIZE
    window = int(torch.randint(size - 8, size + 1, ()))
    top, left = ((size - window) // 2 + int(shift) for shift in torch.randint(-2, 3, (2,)))
    top, left = max(0, min(top, size - window)), max(0, min(left, size - window))
    pictures = pictures[..., top : top + window, left : left + window]
    resized = nn.functional.interpolate(pictures.float(), size=(size, size), mode="bilinear", antialias=True)
    return normalized(resized)


def train(pictures: Tensor, labels: Tensor, epochs: int) -> nn.Module:
    """Train on pictures, uint8 [n, 3, 64, 64]; returns the running average of the weights."""
    model = Classifier(len(make_shapes.PATCH_CLASSES)).to(memory_format=torch.channels_last)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.995), use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    steps = len(pictures) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, epochs=epochs, steps_per_epoch=steps)
    for epoch in range(epochs):
        total = 0.0
        for chosen in torch.randperm(len(pictures))[: steps * BATCH].view(steps, BATCH):
            logits = model(augmented(pictures[chosen]).contiguous(memory_format=torch.channels_last))
            loss = nn.functional.cross_entropy(logits, labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            average.update_parameters(model)
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs}: loss {total / steps:.3f}", flush=True)
    return average.module.eval()


def export(model: nn.Module, path: Path) -> None:
    """Write the model as ONNX, opset 17, batch size free, BatchNormalization kept apart."""
    torch.onnx.export(
        model,
        (torch.zeros(1, 3, make_shapes.PATCH_SIZE, make_shapes.PATCH_SIZE),),
        str(path),
        input_names=["input"],
        output_names=["logits"],
        dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=17,
        training=torch.onnx.TrainingMode.PRESERVE,  # EVAL would fuse the normalization into the convolutions
        do_constant_folding=False,
        dynamo=False,
    )


def main() -> None:
    """Draw, train, print the score on the committed validation pictures, export."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "patches_classifier.onnx")
    parser.add_argument("--pictures", type=int, default=8000)
    parser.add_argument("--epochs", type=int, default=24)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    model = train(*draw("training", options.pictures), options.epochs)
    pictures, labels = draw("val", make_shapes.PATCHES["val"])
    with torch.no_grad():
        right = (model(normalized(pictures)).argmax(1) == labels).float().mean()
    print(f"top-1 on {len(labels)} validation pictures: {100 * right:.1f} %")
    export(model, options.out)


if __name__ == "__main__":
    main()

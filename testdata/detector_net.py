"""The network of the small detector: a YOLO of two scales, with its decoding inside the graph.

Built from the parts of YOLOv8 (convolution-normalization-SiLU, split-and-concatenate blocks of residual
bottlenecks, a chain of max pools, a nearest upsampling into a concatenation, separate heads for boxes and
classes) and the depthwise class head of YOLO11. Box sides are predicted as distributions over whole strides:
X. Li et al., "Generalized Focal Loss", 2020, https://arxiv.org/abs/2006.04388.
"""

import math

import torch
from torch import Tensor, nn

STRIDES = (8, 16)
BINS = 8
"""A box side lies 0 to `BINS` - 1 strides from the cell's centre."""


class Conv(nn.Module):
    """Convolution, normalization, SiLU."""

    def __init__(self, inside: int, outside: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outside, eps=1e-3, momentum=0.03)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [n, inside, h, w] to [n, outside, h / stride, w / stride]."""
        return self.act(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    """Two convolutions with a shortcut around them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cv1 = Conv(width, width, 3)
        self.cv2 = Conv(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape."""
        return x + self.cv2(self.cv1(x))


class SplitBlock(nn.Module):
    """One half of the channels goes on as it is, the other through bottlenecks; every stage is concatenated."""

    def __init__(self, inside: int, outside: int, depth: int = 1) -> None:
        super().__init__()
        self.half = half = outside // 2
        self.cv1 = Conv(inside, outside)
        self.m = nn.ModuleList(Bottleneck(half) for _ in range(depth))
        self.cv2 = Conv((2 + depth) * half, outside)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [n, inside, h, w] to [n, outside, h, w]."""
        stages = list(self.cv1(x).split((self.half, self.half), 1))
        for bottleneck in self.m:
            stages.append(bottleneck(stages[-1]))
        return self.cv2(torch.cat(stages, 1))


class PyramidPool(nn.Module):
    """Three max pools in a chain see ever larger windows (SPPF)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cv1 = Conv(width, width // 2)
        self.cv2 = Conv(2 * width, width)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Keeps the shape."""
        windows = [self.cv1(x)]
        for _ in range(3):
            windows.append(self.pool(windows[-1]))
        return self.cv2(torch.cat(windows, 1))


class Head(nn.Module):
    """Box distributions and class scores for every cell of one scale."""

    def __init__(self, inside: int, classes: int) -> None:
        super().__init__()
        self.box = nn.Sequential(Conv(inside, 32, 3), Conv(32, 32, 3), nn.Conv2d(32, 4 * BINS, 1))
        self.cls = nn.Sequential(
            *(Conv(inside, inside, 3, groups=inside), Conv(inside, inside)),
            *(Conv(inside, inside, 3, groups=inside), Conv(inside, inside)),
            nn.Conv2d(inside, classes, 1),
        )
        nn.init.constant_(self.cls[-1].bias, -math.log(99))  # a score of 1 % where nothing is known yet

    def forward(self, x: Tensor) -> Tensor:
        """Maps [n, inside, h, w] to [n, 4 * BINS + classes, h * w]."""
        return torch.cat((self.box(x), self.cls(x)), 1).view(x.shape[0], -1, x.shape[2] * x.shape[3])


class Detector(nn.Module):
    """The whole network, for square pictures of `size` pixels."""

    def __init__(self, classes: int, size: int) -> None:
        super().__init__()
        self.classes = classes
        self.stem = Conv(3, 16, 3, 2)
        self.stage4 = nn.Sequential(Conv(16, 32, 3, 2), SplitBlock(32, 32))
        self.stage8 = nn.Sequential(Conv(32, 64, 3, 2), SplitBlock(64, 64))
        self.stage16 = nn.Sequential(Conv(64, 64, 3, 2), SplitBlock(64, 64, depth=2), PyramidPool(64))
        self.up = nn.Upsample(scale_factor=2)
        self.neck8 = SplitBlock(128, 64)
        self.down = Conv(64, 64, 3, 2)
        self.neck16 = SplitBlock(128, 64)
        self.heads = nn.ModuleList(Head(64, classes) for _ in STRIDES)
        self.dfl = nn.Conv2d(BINS, 1, 1, bias=False).requires_grad_(requires_grad=False)
        self.dfl.weight.data[:] = torch.arange(BINS, dtype=torch.float32).view(1, BINS, 1, 1)
        cells = [_centres(size // stride) for stride in STRIDES]
        self.register_buffer("anchors", torch.cat(cells, 1), persistent=False)
        counts = torch.tensor([(size // stride) ** 2 for stride in STRIDES])
        strides = torch.tensor(STRIDES, dtype=torch.float32).repeat_interleave(counts)
        self.register_buffer("strides", strides, persistent=False)

    def raw(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Before decoding: logits of the sides [n, 4 * BINS, cells] and of the classes [n, classes, cells]."""
        at8 = self.stage8(self.stage4(self.stem(x)))
        at16 = self.stage16(at8)
        at8 = self.neck8(torch.cat((self.up(at16), at8), 1))
        at16 = self.neck16(torch.cat((self.down(at8), at16), 1))
        heads = [head(scale) for head, scale in zip(self.heads, (at8, at16), strict=True)]
        sides, scores = torch.cat(heads, 2).split((4 * BINS, self.classes), 1)
        return sides, scores

    def boxes(self, sides: Tensor) -> Tensor:
        """The expected sides as boxes [n, 4, cells]: cx, cy, w, h in pixels."""
        count, _, cells = sides.shape
        shares = sides.view(count, 4, BINS, cells).transpose(2, 1).softmax(1)
        before, after = self.dfl(shares).view(count, 4, cells).chunk(2, 1)
        low, high = self.anchors - before, self.anchors + after
        return torch.cat(((low + high) / 2, high - low), 1) * self.strides

    def forward(self, x: Tensor) -> Tensor:
        """Maps pictures [n, 3, size, size] in 0..1 to [n, 4 + classes, cells]: boxes in pixels, scores in 0..1."""
        sides, scores = self.raw(x)
        return torch.cat((self.boxes(sides), scores.sigmoid()), 1)


def _centres(count: int) -> Tensor:
    """Centres x, y of the cells of a `count` x `count` grid, in strides: float32 [2, count * count]."""
    at = torch.arange(count) + 0.5
    y, x = torch.meshgrid(at, at, indexing="ij")
    return torch.stack((x.flatten(), y.flatten()))

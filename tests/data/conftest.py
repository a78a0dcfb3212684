"""Tiny pictures and model inputs that the data tests share."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxopt.data import InputSpec


@pytest.fixture
def draw() -> Callable[..., Path]:
    """A function that writes a seeded noise picture (lossless if the name ends in .png)."""

    def write(path: Path, width: int = 20, height: int = 10, seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture
def rgb_input() -> list[InputSpec]:
    return [InputSpec("images", (1, 3, 8, 8), np.dtype(np.float32))]

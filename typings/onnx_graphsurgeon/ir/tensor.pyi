from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import onnx

class LazyValues:
    def __init__(self, tensor: onnx.TensorProto) -> None: ...
    tensor: onnx.TensorProto
    shape: Sequence[int]
    dtype: Any
    nbytes: int
    def load(self) -> npt.NDArray[Any]: ...

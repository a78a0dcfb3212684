"""The part of onnx-graphsurgeon that onnxopt uses, typed (the package ships no types)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx_graphsurgeon.ir.tensor import LazyValues

class Tensor:
    name: str
    inputs: list[Node]
    outputs: list[Node]
    shape: Sequence[int | str | None] | None
    dtype: Any
    def copy(self) -> Tensor: ...
    def is_empty(self) -> bool: ...

class Variable(Tensor):
    type: str
    def __init__(
        self, name: str, dtype: Any = ..., shape: Sequence[int | str | None] | None = ..., type: str = ...
    ) -> None: ...
    @staticmethod
    def empty() -> Variable: ...

class Constant(Tensor):
    values: npt.NDArray[Any]
    data_location: int | None
    _values: npt.NDArray[Any] | LazyValues
    def __init__(self, name: str, values: npt.NDArray[Any] | LazyValues) -> None: ...

class Node:
    op: str
    name: str
    domain: str | None
    attrs: dict[str, Any]
    inputs: list[Tensor]
    outputs: list[Tensor]
    def __init__(
        self,
        op: str,
        name: str | None = ...,
        attrs: dict[str, Any] | None = ...,
        inputs: Sequence[Tensor] | None = ...,
        outputs: Sequence[Tensor] | None = ...,
        domain: str | None = ...,
    ) -> None: ...

class Graph:
    nodes: list[Node]
    inputs: list[Tensor]
    outputs: list[Tensor]
    name: str
    opset: int
    def __init__(
        self,
        nodes: Sequence[Node] | None = ...,
        inputs: Sequence[Tensor] | None = ...,
        outputs: Sequence[Tensor] | None = ...,
        *,
        name: str | None = ...,
        opset: int | None = ...,
    ) -> None: ...
    def copy(self) -> Graph: ...

def import_onnx(onnx_model: onnx.ModelProto) -> Graph: ...

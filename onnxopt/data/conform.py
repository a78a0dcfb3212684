"""Checks that arrays somebody else prepared are what the model's inputs want.

1. Names: every input has an array; arrays that are no input are left out.
2. Shapes: the input's shape with a batch of 1.
3. Types: the input's own, or another width of the same kind (float64 for float32) if the values fit.
4. Values: finite.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from onnxopt.data.sample import Array, InputSpec
from onnxopt.errors import UsageError


def check_names(given: Iterable[str], inputs: Sequence[InputSpec], where: str) -> None:
    """Refuse a set of arrays that lacks one for a model input.

    Raises:
        UsageError: An input has no array.
    """
    names = set(given)
    if missing := [str(spec) for spec in inputs if spec.name not in names]:
        have = ", ".join(sorted(names)) or "no arrays"
        raise UsageError(f"{where} lacks the model's {', '.join(missing)}; it has {have}")


def check_type(dtype: np.dtype[Any], spec: InputSpec, where: str) -> None:
    """Refuse an array type that is not of the kind the input wants.

    Raises:
        UsageError: The kinds differ, such as whole numbers for a float input.
    """
    whole = "iu"
    same_kind = dtype.kind == spec.dtype.kind or (dtype.kind in whole and spec.dtype.kind in whole)
    if not same_kind:
        raise UsageError(f"{where}: '{spec.name}' is {dtype.name}, expected {spec.dtype.name} for input {spec}")


def convert(array: Array, spec: InputSpec, where: str) -> Array:
    """Return an array of the right shape as the input's type.

    Raises:
        UsageError: The type is of another kind, a value does not fit, or one is NaN or infinite.
    """
    check_type(array.dtype, spec, where)
    # An overflow to infinity is reported below, in words.
    with np.errstate(over="ignore", invalid="ignore"):
        converted = np.ascontiguousarray(array, spec.dtype).reshape(array.shape)
    if spec.dtype.kind in "iu" and not np.array_equal(converted, array):
        raise UsageError(f"{where}: '{spec.name}' has values that do not fit {spec.dtype.name}")
    if spec.dtype.kind == "f" and not np.isfinite(converted).all():
        what = "NaN" if np.isnan(array).any() else "infinite values"
        raise UsageError(f"{where}: '{spec.name}' has {what}; every value must be a finite {spec.dtype.name}")
    return converted


def stack_axis(shape: tuple[int, ...], spec: InputSpec) -> bool | None:
    """Tell how samples are stacked in an array of this shape whose first axis is the samples.

    Returns:
        False: each row is a whole sample, batch axis included. True: rows lack the batch axis of 1.
        None: neither, the shape does not fit.
    """
    if shape[1:] == spec.sample_shape and shape:
        return False
    if len(spec.shape) >= 2 and shape[1:] == spec.shape[1:] and len(shape) == len(spec.shape):
        return True
    return None

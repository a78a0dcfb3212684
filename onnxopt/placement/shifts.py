"""What passes added to tensors in front of layers that take it away again."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Shifts:
    """Constants that were added to tensors, and taken away again by the biases of all layers that read them.

    The bias was made for the weights in float. Times their rounding errors the constant is an error that does not
    average out, so `emit` makes the biases of int8 layers anew.

    Attributes:
        by: Constant, by the tensor's name.
    """

    by: Mapping[str, float] = field(default_factory=dict)

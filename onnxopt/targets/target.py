"""The shape of a target: a table that the placement engine reads, and the name of the adapter that runs models."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["anchor", "follower", "passthrough"]


@dataclass(frozen=True)
class NumberFormat:
    """How numbers are stored in 8 bits.

    Attributes:
        dtype: numpy name, `uint8` or `int8`.
        symmetric: Zero point in the middle of the range (0 for int8).
        limit: For symmetric formats the largest code used, e.g. 127.
    """

    dtype: Literal["uint8", "int8"]
    symmetric: bool
    limit: int = 127


@dataclass(frozen=True)
class OpRule:
    """How a target runs one op type in int8.

    Attributes:
        role: `anchor`: a weighted op, the reason to quantize at all. `follower`: runs in int8 where all its
            tensors are quantized. `passthrough`: moves int8 values; input and output share their parameters.
        inputs: Which inputs carry activations; None for all.
        output: Whether a Q must follow directly.
        reason: Why the op is left in float, for ops that have no role.
    """

    role: Role | None
    inputs: tuple[int, ...] | None = (0,)
    output: bool = True
    reason: str = ""


@dataclass(frozen=True)
class Target:
    """A runtime on a kind of machine.

    Attributes:
        name: Kebab-case name, equal to the entry point's.
        summary: One line.
        opset_floor: Lowest opset that the emitted Q/DQ need.
        activation: Format of activations.
        weight: Format of weights, per output channel.
        rules: Op type to rule; an op without one is left in float.
        default_reason: Why an op without a rule is left in float.
        fused_activations: Ops that fuse into a weighted op before them if their range needs no clipping.
        elementwise: Float ops that keep their input's memory layout, so that int8 may go on behind them.
        max_stem_channels: A Conv on the graph input with at most so many input channels stays float.
        quantize_final: Whether weighted layers with no other behind them run in int8 too.
        contrib_silu: Whether `com.microsoft.QuickGelu` may be emitted.
        softmax_by_exp: Whether the softmax of a box head is faster as Exp, Conv and Div.
        requantizes_float: Whether the runtime quantizes a float layer between Q/DQ by itself, so that keeping it float
            takes a per-channel DQ before it.
        int32_bias: Whether biases are emitted as int32 behind a DQ.
        alignment: Channel counts that run fast are multiples of this; 0: asked of the machine it runs on.
        adapter: `module:class` of the runtime adapter; "" where the target cannot run here.
    """

    name: str
    summary: str
    opset_floor: int
    activation: NumberFormat
    weight: NumberFormat
    rules: Mapping[str, OpRule] = field(default_factory=dict)
    default_reason: str = "the runtime has no int8 kernel for this op"
    fused_activations: frozenset[str] = frozenset()
    elementwise: frozenset[str] = frozenset()
    max_stem_channels: int = 0
    quantize_final: bool = False
    contrib_silu: bool = False
    softmax_by_exp: bool = False
    requantizes_float: bool = False
    int32_bias: bool = False
    alignment: int = 8
    adapter: str = ""

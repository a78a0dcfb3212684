"""The shape of a target: a table that the placement engine reads, and the name of the adapter that runs models."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["anchor", "follower", "passthrough", "residual"]


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
            tensors are quantized. `passthrough`: moves int8 values; inputs and output share their parameters.
            `residual`: an addition that fuses into the weighted op before it if its other branch is quantized.
        inputs: Which inputs carry activations; None for all.
        output: Whether a Q must follow directly. A passthrough without one lets a Q behind it move before it, to all
            its inputs, which then share their parameters.
        per_channel: Of an anchor: whether its weights have one scale per output channel, or one for all.
        aligned: Of a follower: whether it runs faster where its tensors share scale and zero point. They do where
            that costs none of them more than one bit.
        reason: Why the op is left in float, for ops that have no role.
    """

    role: Role | None
    inputs: tuple[int, ...] | None = (0,)
    output: bool = True
    per_channel: bool = True
    aligned: bool = False
    reason: str = ""


@dataclass(frozen=True)
class SizeLimits:
    """Which weighted layers are large enough to gain by int8. The first layers of a model always are.

    Attributes:
        channels: Fewest input and output channels (rows and columns of a matrix); 0 for no limit.
        multiple: A dense Conv below `channels` on one side passes if both sides are multiples of this and its kernel
            is square; a grouped Conv if its output channels are.
        grouped_kernel: Smallest side of the kernel of such a grouped Conv.
        rows: Fewest rows of the left side of a matrix product, where known.
    """

    channels: int = 0
    multiple: int = 8
    grouped_kernel: int = 3
    rows: int = 0

    def __str__(self) -> str:
        if not self.channels:
            return "any"
        return (
            f"from {self.channels} channels and {self.rows} rows on; some smaller ones in multiples of {self.multiple}"
        )


@dataclass(frozen=True)
class Machine:
    """A kind of machine.

    Attributes:
        architecture: `x86_64` or `aarch64`.
        one_of: Instruction set extensions, as Linux names them, one of which it has; empty for any machine.
        none_of: Extensions that it lacks.
    """

    architecture: str
    one_of: frozenset[str] = frozenset()
    none_of: frozenset[str] = frozenset()

    def fits(self, architecture: str, features: Collection[str]) -> bool:
        """Whether a machine is of this kind. One whose extensions are not known has none."""
        has = self.one_of.intersection(features) or not self.one_of
        return architecture == self.architecture and bool(has) and self.none_of.isdisjoint(features)

    def __str__(self) -> str:
        has = f" with {' or '.join(sorted(self.one_of))}" if self.one_of else ""
        return self.architecture + has + (f" without {', '.join(sorted(self.none_of))}" if self.none_of else "")


@dataclass(frozen=True)
class Target:
    """A runtime on a kind of machine.

    Attributes:
        name: Kebab-case name, equal to the entry point's.
        summary: One line.
        opset_floor: Lowest opset that the emitted Q/DQ need.
        activation: Format of activations.
        positive: Format of activations that are never negative; default: the same.
        weight: Format of weights, per output channel.
        rules: Op type to rule; an op without one is left in float.
        default_reason: Why an op without a rule is left in float.
        fused_activations: Ops that fuse into a weighted op before them if their range needs no clipping.
        elementwise: Float ops that keep their input's memory layout, so that int8 may go on behind them.
        sizes: Weighted layers smaller than this stay float.
        max_stem_channels: A Conv on the graph input with at most so many input channels stays float.
        quantize_final: Whether weighted layers with no other behind them run in int8 too.
        contrib_silu: Whether `com.microsoft.QuickGelu` may be emitted.
        softmax_by_exp: Whether the softmax of a box head is faster as Exp, MatMul and Div.
        resize_by_tile: Whether int8 up-sampling is faster as a Tile of pixels in channels-last layout.
        slow_subnormals: Whether numbers below the smallest normal float32 slow a MatMul down.
        unmoved: Float operators before which the runtime would move the Q behind them, to its cost. It does not where
            the Q has its one scale once per channel.
        reads_pairs: Whether all that reads a quantized activation reads it through its pair, so that the runtime
            writes it once, in 8 bits, whatever computes it.
        no_joined_rows: Whether the runtime cannot load an int8 matrix product that reads a Concat along another
            axis than it sums over.
        clip_as_max_min: Whether a Relu or Clip behind a layer with 8- or 4-bit weights becomes Max and Min, for the
            runtime takes it for the beginning of a quantized layer and leaves the weights unfused.
        requantizes_float: Whether the runtime quantizes a float layer between Q/DQ by itself, so that keeping it float
            takes a per-channel DQ before it.
        int32_bias: Whether biases are emitted as int32 behind a DQ.
        alignment: Channel counts that run fast are multiples of this; 0: asked of the machine it runs on.
        machine: Where it is measured; elsewhere the runtime may run it, but not as it would there. None: anywhere.
        adapter: `module:class` of the runtime adapter; "" where the target cannot run here.
        checker: `module:function` that finds what the runtime's documented rules object to in a quantized graph, for
            a target without an adapter; "" for none.
        runtime: The adapter itself, where it is on a device; None: `adapter` says what runs here.
    """

    name: str
    summary: str
    opset_floor: int
    activation: NumberFormat
    weight: NumberFormat
    positive: NumberFormat | None = None
    rules: Mapping[str, OpRule] = field(default_factory=dict)
    default_reason: str = "the runtime has no int8 kernel for this op"
    fused_activations: frozenset[str] = frozenset()
    elementwise: frozenset[str] = frozenset()
    sizes: SizeLimits = SizeLimits()
    max_stem_channels: int = 0
    quantize_final: bool = False
    contrib_silu: bool = False
    softmax_by_exp: bool = False
    resize_by_tile: bool = False
    slow_subnormals: bool = False
    unmoved: frozenset[str] = frozenset()
    reads_pairs: bool = False
    no_joined_rows: bool = False
    clip_as_max_min: bool = False
    requantizes_float: bool = False
    int32_bias: bool = False
    alignment: int = 8
    machine: Machine | None = None
    adapter: str = ""
    checker: str = ""
    runtime: Any = field(default=None, compare=False, repr=False)

    def format_from(self, low: float) -> NumberFormat:
        """Format of activations whose range begins at `low`, which is at most 0."""
        return self.positive if self.positive is not None and low >= 0 else self.activation


@dataclass(frozen=True)
class TargetFamily:
    """One runtime on several kinds of machines, under one name that stands for the machine it is used on.

    Attributes:
        name: Kebab-case name, equal to the entry point's.
        summary: One line.
        tables: Targets with a `machine`; the first is taken where none fits.
    """

    name: str
    summary: str
    tables: tuple[Target, ...]

    def on(self, architecture: str, features: Collection[str]) -> Target:
        """The table for a machine."""
        fitting = (t for t in self.tables if t.machine is None or t.machine.fits(architecture, features))
        return next(fitting, self.tables[0])

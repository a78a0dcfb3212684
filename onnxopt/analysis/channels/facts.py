"""What rules find out about a graph: constants to cut, places to mask, attributes to edit."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from onnxopt.analysis.channels.atoms import IntArray, Kept
from onnxopt.graph import Graph, Node

Role = Literal["out", "in", "through", "constant"]


class Refuse(Exception):  # noqa: N818  (not an error: a rule that will not guess)
    """A rule cannot say what happens to the channels here; the text says why."""


@dataclass(frozen=True)
class Policy:
    """Which relations are taken where several would be right.

    Attributes:
        normalized_width: Let channels go that a normalisation or a mean runs over: its statistics are then those of
            the channels that stay, so the others change. Otherwise such an axis is a barrier.
        whole_blocks: Where an axis is taken apart, `[heads * dim] -> [heads, dim]`, let whole heads go instead of
            the same places in each.
    """

    normalized_width: bool = False
    whole_blocks: bool = False


DEFAULT = Policy()


@dataclass(frozen=True, eq=False)
class Site:
    """A constant that holds values per channel, and is cut with them.

    Attributes:
        node: Position of the node in `graph.nodes`.
        role: `out`: weights and biases that make the channels. `in`: weights that sum over them. `through`:
            weights applied channel by channel (depthwise, BatchNormalization). `constant`: any other.
        input: Which input of the node is the constant.
        axis: Axis of the constant.
        atoms: One per index of the axis.
    """

    node: int
    role: Role
    input: int
    axis: int
    atoms: IntArray


@dataclass(frozen=True, eq=False)
class Sum:
    """A place where a node sums over channels of an activation: where a mask stands for their removal.

    Attributes:
        node: Position of the node.
        input: Which input is the activation.
        axis: Its axis that is summed over.
        rank: Its number of axes.
        atoms: One per index of the axis.
    """

    node: int
    input: int
    axis: int
    rank: int
    atoms: IntArray


@dataclass(frozen=True, eq=False)
class Statistic:
    """A node that computes statistics over channels, of those that stay; see `Policy.normalized_width`.

    Attributes:
        node: Position of the node.
        axis: The axis of its first input that holds the channels.
        axes: All axes that the statistics run over.
        rank: Number of axes of the input.
        atoms: One per index of the axis.
    """

    node: int
    axis: int
    axes: tuple[int, ...]
    rank: int
    atoms: IntArray


@dataclass(frozen=True, eq=False)
class Edit:
    """A change to attributes or shape constants that is due when any of `atoms` goes."""

    node: int
    atoms: IntArray
    apply: Callable[[Graph, Node, Kept], None]

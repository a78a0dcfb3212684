"""What is known while a graph is walked, and the words in which rules are written.

Each operator's rule says, with the methods of `Trace`, how the channels of its outputs follow from those of its
inputs and which weights, attributes and shape constants speak of them.

An axis that is not tracked never changes. So everything a rule does not mention is safe by default.
"""

from collections.abc import Callable, Collection, Mapping
from math import prod

from onnxopt.analysis.channels import sizes
from onnxopt.analysis.channels.atoms import Atoms, IntArray, Kept
from onnxopt.analysis.channels.facts import DEFAULT, Edit, Policy, Refuse, Role, Site, Statistic, Sum
from onnxopt.analysis.channels.inference import LateShapes
from onnxopt.analysis.channels.sizes import Sizes
from onnxopt.analysis.channels.weights import weight_value
from onnxopt.analysis.shapes import Shape, Shapes
from onnxopt.graph import Array, Constant, Graph, Node, Tensor, label

__all__ = ["Edit", "Policy", "Refuse", "Role", "Rule", "Site", "Statistic", "Sum", "Trace"]


class Trace:
    """What is known while the graph is walked, and the words that rules speak in.

    Attributes:
        graph: The graph.
        atoms: All channels.
        layouts: Tensor name to axis to atoms, for the axes that are tracked.
        sites: Constants to cut.
        sums: Places to mask.
        statistics: Places where statistics are taken over the channels that stay.
        edits: Attributes and shape constants to rewrite.
        barriers: Position of a node to why it is a barrier, for nodes that channels reached.
        policy: Which relations to take where several would be right.
        chosen: Position of a node that could be related in several ways to the channels that it leaves free.
    """

    def __init__(self, graph: Graph, shapes: Shapes, policy: Policy = DEFAULT, others: Collection[int] = ()) -> None:
        self.graph = graph
        self.policy = policy
        self.chosen: dict[int, IntArray] = {}
        self.atoms = Atoms()
        self.layouts: dict[str, dict[int, IntArray]] = {}
        self.sites: list[Site] = []
        self.sums: list[Sum] = []
        self.statistics: list[Statistic] = []
        self.edits: list[Edit] = []
        self.barriers: dict[int, str] = {}
        self._shapes = LateShapes(graph, shapes)
        self._sizes: dict[str, Sizes | None] = {}
        self._others = others
        self._read: set[int] = set()
        self._position = 0

    def shape(self, tensor: Tensor) -> Shape | None:
        """Shape as inferred, with the lengths of tracked axes filled in; None where not even the rank is known."""
        known_sizes = self._sizes.get(tensor.name)
        shape = self._shapes.shape(tensor) if known_sizes is None else known_sizes.shape
        value = self.graph.constant(tensor) if shape is None else None
        if value is not None:
            return tuple(value.shape)
        if shape is None:
            return None
        known = self.tracked(tensor)
        return tuple(len(known[i]) if i in known else d for i, d in enumerate(shape))

    def rank(self, tensor: Tensor) -> int:
        """Number of axes.

        Raises:
            Refuse: It is not known.
        """
        shape = self.shape(tensor)
        if shape is None:
            raise Refuse(f"the number of axes of '{tensor.name}' is unknown")
        return len(shape)

    def size(self, tensor: Tensor, axis: int) -> int | None:
        """Length of an axis, where known."""
        known = self.tracked(tensor).get(axis)
        if known is not None:
            return len(known)
        shape = self.shape(tensor)
        length = shape[axis] if shape is not None and axis < len(shape) else None
        return length if isinstance(length, int) and length >= 0 else None

    def tracked(self, tensor: Tensor) -> Mapping[int, IntArray]:
        """The tracked axes of a tensor."""
        return self.layouts.get(tensor.name, {})

    def axis(self, tensor: Tensor, axis: int, size: int | None = None) -> IntArray:
        """Atoms of an axis; of an axis that is not tracked, new ones that are fixed.

        Raises:
            Refuse: The length is not known, or is not `size`.
        """
        found = self.size(tensor, axis)
        if found is None:
            found = size
        if found is None or (size is not None and found != size):
            raise Refuse(f"the size of axis {axis} of '{tensor.name}' is {'unknown' if found is None else found}")
        known = self.tracked(tensor).get(axis)
        if known is not None:
            return known
        made = self.atoms.fresh(found)
        self.atoms.fix(made, self._origin(tensor))
        if self.constant(tensor) is None:
            self.put(tensor, axis, made)
        return made

    def put(self, tensor: Tensor, axis: int, atoms: IntArray) -> None:
        """Say which atoms an axis of a tensor has."""
        self.layouts.setdefault(tensor.name, {})[axis] = atoms

    def put_all(self, tensor: Tensor, axes: Mapping[int, IntArray]) -> None:
        """Say which atoms several axes of a tensor have."""
        for axis, atoms in axes.items():
            self.put(tensor, axis, atoms)

    def hold(self, node: Node, atoms: IntArray, why: str) -> None:
        """Fix atoms because of a node."""
        self.atoms.fix(atoms, f"{label(node)} {why}")

    def hold_others(self, node: Node, tensor: Tensor, *axes: int) -> None:
        """Fix all tracked axes of a tensor but `axes`."""
        for axis, atoms in self.tracked(tensor).items():
            if axis not in axes:
                self.hold(node, atoms, f"reads axis {axis} as a position, not as channels")

    def constant(self, tensor: Tensor) -> Array | None:
        """Value of a constant that is not tracked, also behind Cast, Transpose and DequantizeLinear."""
        return None if self.tracked(tensor) else weight_value(self.graph, tensor)

    def weight(self, node: Node, index: int) -> Array:
        """Value of a constant input.

        Raises:
            Refuse: It is no constant.
        """
        value = self.constant(node.inputs[index]) if index < len(node.inputs) else None
        if value is None:
            raise Refuse(f"has an input {index} that is no constant")
        return value

    def sizes(self, tensor: Tensor) -> Sizes | None:
        """What is known of a small array of integers: a constant, or made by shape arithmetic."""
        if tensor.name not in self._sizes:
            large = isinstance(tensor, Constant) and prod(int(d or 0) for d in tensor.shape or ()) > sizes.MOST
            value = None if large else self.graph.constant(tensor)
            self._sizes[tensor.name] = None if value is None else sizes.lift(value)
        return self._sizes[tensor.name]

    def target(self, node: Node, index: int) -> Sizes | None:
        """Sizes that an input gives, of which some may be unknown: the rule itself sees to them in a cut."""
        self._read.add(index)
        return self.sizes(node.inputs[index])

    def ints(self, node: Node, index: int, attribute: str | None = None) -> list[int] | None:
        """Integers from an input or, in old operator sets, an attribute; None where neither is given.

        Raises:
            Refuse: The input is not known before the model runs.
        """
        if index < len(node.inputs) and node.inputs[index].name:
            known = self.sizes(node.inputs[index])
            found = None if known is None else sizes.numbers(known)
            return [int(v) for v in self.weight(node, index).ravel()] if found is None else found
        value = node.attrs.get(attribute) if attribute else None
        return None if value is None else [int(v) for v in value]

    def site(self, role: Role, index: int, axis: int, atoms: IntArray) -> None:
        """The constant at input `index` of the current node holds values per channel."""
        self.sites.append(Site(self._position, role, index, axis, atoms))

    def sum(self, index: int, axis: int, rank: int, atoms: IntArray) -> None:
        """The current node sums over an axis of its input `index`."""
        self.sums.append(Sum(self._position, index, axis, rank, atoms))

    def edit(self, atoms: IntArray, apply: Callable[[Graph, Node, Kept], None]) -> None:
        """The current node needs a change when any of `atoms` goes."""
        self.edits.append(Edit(self._position, atoms, apply))

    def statistic(self, axis: int, axes: tuple[int, ...], rank: int, atoms: IntArray) -> None:
        """The current node takes statistics over `axes` of its first input, among them the channels' axis."""
        self.statistics.append(Statistic(self._position, axis, axes, rank, atoms))

    def prefer(self, count: int) -> int:
        """Which of `count` ways to relate channels, the one that leaves most freedom first, the current node takes."""
        second = self.policy.whole_blocks != (self._position in self._others)
        return min(int(second), count - 1)

    def choose(self, atoms: IntArray) -> None:
        """The current node had a choice, and leaves these channels free."""
        self.chosen[self._position] = atoms

    def _origin(self, tensor: Tensor) -> str:
        if self.constant(tensor) is not None:
            return f"constant '{tensor.name}'"
        producer = self.graph.producer(tensor)
        if producer is None:
            return f"graph input '{tensor.name}'"
        index = next((i for i in self.barriers if self.graph.nodes[i] is producer), None)
        return f"{label(producer)} makes them" if index is None else self.barriers[index]


Rule = Callable[[Node, Trace], None]

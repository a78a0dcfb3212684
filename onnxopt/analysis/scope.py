"""Which nodes a pass works on, by patterns of their names."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from onnxopt.errors import UsageError
from onnxopt.graph import Node


@dataclass(frozen=True)
class Scope:
    """What the options `scope` and `ignore` of a pass say.

    Attributes:
        only: Shell-style patterns; a node has to match one of them. None: every node does.
        ignore: A node must match none of these.
    """

    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def check(self, asker: str, names: Collection[str], what: str) -> None:
        """Refuse patterns that match nothing: they are mistyped, or from another model.

        Args:
            asker: The pass.
            names: Of all that may be matched.
            what: What has these names, after "matches no".

        Raises:
            UsageError: There is such a pattern.
        """
        for pattern in (*self.only, *self.ignore):
            if not matches(names, (pattern,)):
                like = f"; names look like {sorted(names)[:3]}" if names else ""
                raise UsageError(f"{asker}: '{pattern}' matches no {what}{like}")

    def why_not(self, names: Sequence[str], parts: Sequence[str] = ()) -> str:
        """Why something is left alone; empty where it is not.

        Args:
            names: Its own.
            parts: Those of what goes with it, which may be ignored, too.
        """
        if self.only and not matches(names, self.only):
            return "outside scope"
        return "ignored on request" if matches((*names, *parts), self.ignore) else ""


def own_name(node: Node) -> str:
    """What patterns are matched with: a node's name, or that of its first output where it has none."""
    return node.name or node.outputs[0].name


def matches(names: Collection[str], patterns: Collection[str]) -> bool:
    """Whether a name matches a pattern; one with brackets in it, such as `conv[0]`, at least matches itself."""
    return any(name == pattern or fnmatchcase(name, pattern) for name in names for pattern in patterns)

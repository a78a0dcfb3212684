"""What a rule finds."""

from dataclasses import dataclass

from onnxopt.graph import Node, label


@dataclass(frozen=True)
class Finding:
    """A rule that a graph breaks.

    Attributes:
        rule: Kebab-case name of the rule.
        node: Where, as messages name a node.
        text: What is wrong and what to do, in one sentence.
    """

    rule: str
    node: str
    text: str


def finding(rule: str, node: Node, text: str) -> Finding:
    """A finding at a node."""
    return Finding(rule, label(node), text)

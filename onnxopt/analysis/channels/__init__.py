"""Which channels of a graph depend on each other, and how to remove them.

* `atoms`: channels as atoms, tied and fixed;
* `trace`: the walk that relates the axes of all tensors, and the words in which rules are written;
* `weighted`, `elementwise`, `segments`, `geometry`, `reshaping`: the rules; `table`: operator to rule;
* `groups`: what can be removed, what goes with it, what is fixed and why;
* `cutting`: remove channels, or mask them;
* `scoring`, `selection`: which ones.
"""

from onnxopt.analysis.channels.cutting import cut
from onnxopt.analysis.channels.facts import Policy
from onnxopt.analysis.channels.groups import ChannelGroups, Group, Member
from onnxopt.analysis.channels.masking import masked
from onnxopt.analysis.channels.table import RULES

__all__ = ["RULES", "ChannelGroups", "Group", "Member", "Policy", "cut", "masked"]

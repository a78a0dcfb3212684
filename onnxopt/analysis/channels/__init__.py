"""Which channels of a graph depend on each other, and how to remove them.

* `atoms`: channels as atoms, tied and fixed;
* `facts`: what rules find out; `sizes`, `inference`: shape arithmetic, and shapes that follow from it;
* `trace`: what relates the axes of all tensors, in the words in which rules are written; `walk`: rule after rule;
* `weighted`, `contraction`, `elementwise`, `normalizing`, `segments`, `geometry`, `blocks`, `reshaping`: the rules;
  `table`: operator to rule, and how others add theirs;
* `groups`: what can be removed, what goes with it, what is fixed and why; `listing`: that in words;
* `cutting`: remove channels, from constants as `weights` finds them; `masking`: mask them instead;
  `provenance`: which are left in each tensor;
* `scoring`, `selection`: which ones; `known`: those that are the same for every input.
"""

from onnxopt.analysis.channels.cutting import cut
from onnxopt.analysis.channels.facts import Policy
from onnxopt.analysis.channels.groups import ChannelGroups, Group, Member, groups_under
from onnxopt.analysis.channels.listing import groups_facts, groups_text
from onnxopt.analysis.channels.masking import masked
from onnxopt.analysis.channels.provenance import cut_weights, provenance
from onnxopt.analysis.channels.table import RULES

__all__ = [
    "RULES",
    "ChannelGroups",
    "Group",
    "Member",
    "Policy",
    "cut",
    "cut_weights",
    "groups_facts",
    "groups_text",
    "groups_under",
    "masked",
    "provenance",
]

"""Winning back what is lost with channels, without training: what the pass `prune` is made of.

* `choosing`: from a budget to a choice; `study`: a copy of the model and what is measured on it; the doors to all else;
  `sharing`: studies that several runs use together;
* `reading`, `moments`, `walking`, `abreast`, `views`: what layers see;
* `elimination`, `streams`: which channels go; `sensitivity`, `damage`: what that costs in accuracy;
* `costs`, `allocation`, `fast_enough`: how many of each group, for a budget;
* `fitting`, `refitting`, `sharpening`: new weights;
* `redundancy`: channels that go at no loss, for the pass `eliminate-channels`.
"""

from onnxopt.analysis.compensation.allocation import allocate
from onnxopt.analysis.compensation.choosing import Choice, Chooser, Ways
from onnxopt.analysis.compensation.costs import Costs, mac_costs, size_costs
from onnxopt.analysis.compensation.fast_enough import LatencyBudget
from onnxopt.analysis.compensation.sensitivity import Sensitivity
from onnxopt.analysis.compensation.sharing import Studies
from onnxopt.analysis.compensation.study import Outcome, Samples, Study

__all__ = [
    "Choice",
    "Chooser",
    "Costs",
    "LatencyBudget",
    "Outcome",
    "Samples",
    "Sensitivity",
    "Studies",
    "Study",
    "Ways",
    "allocate",
    "mac_costs",
    "size_costs",
]

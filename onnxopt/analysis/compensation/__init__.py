"""Winning back what is lost with channels, without training: what the pass `prune` is made of.

* `study`: a copy of the model and what is measured on it; the door to all else;
* `reading`, `moments`, `walking`, `views`: what layers see;
* `elimination`, `streams`: which channels go; `sensitivity`, `damage`: what that costs in accuracy;
* `costs`, `allocation`: how many of each group, for a budget;
* `fitting`, `refitting`, `sharpening`: new weights.
"""

from onnxopt.analysis.compensation.allocation import allocate
from onnxopt.analysis.compensation.costs import Costs, mac_costs, size_costs
from onnxopt.analysis.compensation.sensitivity import Sensitivity
from onnxopt.analysis.compensation.study import Outcome, Samples, Study

__all__ = ["Costs", "Outcome", "Samples", "Sensitivity", "Study", "allocate", "mac_costs", "size_costs"]

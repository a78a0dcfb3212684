"""Where quantizers belong: one engine that reads a target's table."""

from onnxopt.placement.emit import emit
from onnxopt.placement.plan import FloatNodes, Placement, QuantizedTensor, QuantizedWeight, check_ignored, plan

__all__ = ["FloatNodes", "Placement", "QuantizedTensor", "QuantizedWeight", "check_ignored", "emit", "plan"]

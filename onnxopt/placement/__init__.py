"""Where quantizers belong: one engine that reads a target's table."""

from onnxopt.placement.plan import Placement, QuantizedTensor, QuantizedWeight, plan

__all__ = ["Placement", "QuantizedTensor", "QuantizedWeight", "plan"]

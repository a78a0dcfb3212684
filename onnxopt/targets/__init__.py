"""What each runtime wants, as data."""

from onnxopt.targets.target import NumberFormat, OpRule, Target

__all__ = ["NumberFormat", "OpRule", "Target"]

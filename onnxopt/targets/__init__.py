"""What each runtime wants, as data."""

from onnxopt.targets.target import NumberFormat, OpRule, SizeLimits, Target

__all__ = ["NumberFormat", "OpRule", "SizeLimits", "Target"]

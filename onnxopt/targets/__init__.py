"""What each runtime wants, as data."""

from onnxopt.targets.target import Machine, NumberFormat, OpRule, SizeLimits, Target, TargetFamily

__all__ = ["Machine", "NumberFormat", "OpRule", "SizeLimits", "Target", "TargetFamily"]

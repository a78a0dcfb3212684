"""Winning back accuracy after quantization, without training: what the pass `recover` is made of."""

from onnxopt.analysis.recovery.judge import sqnr_by_part
from onnxopt.analysis.recovery.refit import Choices
from onnxopt.analysis.recovery.sweep import recover

__all__ = ["Choices", "recover", "sqnr_by_part"]

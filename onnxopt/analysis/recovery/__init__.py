"""Winning back accuracy after quantization, without training: what the pass `recover` is made of."""

from onnxopt.analysis.recovery.judge import sqnr_by_part
from onnxopt.analysis.recovery.layers import find_layers
from onnxopt.analysis.recovery.reference import FloatModel
from onnxopt.analysis.recovery.refit import Choices
from onnxopt.analysis.recovery.sweep import recover, transfer

__all__ = ["Choices", "FloatModel", "find_layers", "recover", "sqnr_by_part", "transfer"]

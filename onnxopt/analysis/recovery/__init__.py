"""Winning back accuracy after quantization, without training: what the pass `recover` is made of."""

from onnxopt.analysis.recovery.judge import Closeness, closeness
from onnxopt.analysis.recovery.layers import find_layers
from onnxopt.analysis.recovery.reference import FloatModel
from onnxopt.analysis.recovery.refit import Choices
from onnxopt.analysis.recovery.sweep import recover, transfer

__all__ = ["Choices", "Closeness", "FloatModel", "closeness", "find_layers", "recover", "transfer"]

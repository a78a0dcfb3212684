"""One optimization: the model as it came, its way through the stages, and what came out, measured."""

from onnxopt.optimization.run import Optimization, Result, Wanted

__all__ = ["Optimization", "Result", "Wanted"]

"""`onnxopt auto`: try what may make a model faster, and say which result to take."""

from onnxopt.auto.bench import Question
from onnxopt.auto.findings import Findings
from onnxopt.auto.run import auto

__all__ = ["Findings", "Question", "auto"]

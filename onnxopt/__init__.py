"""onnxopt makes trained ONNX vision models small and fast: prune, calibrate, quantize, for a named runtime.

The names below are the public API. They are imported when first used, so `import onnxopt` costs nothing.
"""

from importlib import import_module

TYPE_CHECKING = False  # as type checkers know it; `typing` is what would take longest to import here
if TYPE_CHECKING:
    from typing import Any

    from onnxopt.api import Result, optimize
    from onnxopt.calibration.table import CalibrationTable
    from onnxopt.errors import GateMissed, OnnxoptError, OptimizationError, UsageError
    from onnxopt.graph import Constant, Graph, Node, Tensor, Variable
    from onnxopt.model_io import load, save
    from onnxopt.pass_api import Analysis, Context, Pass, option
    from onnxopt.scoring import Evaluated, evaluate
    from onnxopt.targets import Target

__version__ = "0.1.0"

_HOME = {
    "Analysis": "pass_api",
    "CalibrationTable": "calibration.table",
    "Constant": "graph",
    "Context": "pass_api",
    "Evaluated": "scoring",
    "GateMissed": "errors",
    "Graph": "graph",
    "Node": "graph",
    "OnnxoptError": "errors",
    "OptimizationError": "errors",
    "Pass": "pass_api",
    "Result": "api",
    "Target": "targets",
    "Tensor": "graph",
    "UsageError": "errors",
    "Variable": "graph",
    "evaluate": "scoring",
    "load": "model_io",
    "optimize": "api",
    "option": "pass_api",
    "save": "model_io",
}

__all__ = [
    "Analysis",
    "CalibrationTable",
    "Constant",
    "Context",
    "Evaluated",
    "GateMissed",
    "Graph",
    "Node",
    "OnnxoptError",
    "OptimizationError",
    "Pass",
    "Result",
    "Target",
    "Tensor",
    "UsageError",
    "Variable",
    "__version__",
    "evaluate",
    "load",
    "optimize",
    "option",
    "save",
]


def __getattr__(name: str) -> "Any":
    if name not in _HOME:
        raise AttributeError(f"module 'onnxopt' has no attribute '{name}'")
    return getattr(import_module(f"onnxopt.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__

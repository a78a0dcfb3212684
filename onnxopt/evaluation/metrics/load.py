"""From what the user asked for to a metric."""

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from onnxopt import plugins
from onnxopt.data import is_symbol, load_symbol
from onnxopt.errors import OnnxoptError, OptimizationError, UsageError, nearest
from onnxopt.evaluation.decoding import Reader
from onnxopt.evaluation.metrics.metric import Accumulator, Average, Metric

METRICS = "onnxopt.metrics"


def load_metric(spec: Any, *, metadata: Mapping[str, str] | None = None, decode: str | None = None) -> Metric:
    """Return the metric that a name, `module:function`, function, class or object stands for.

    Args:
        spec: One of these, or a `Metric`. Names are entry points of the group `onnxopt.metrics`: each is a function
            that takes the `Reader` of the model's outputs and returns a `Metric`.
        metadata: The model's `metadata_props`; class names and the kind of head are read from it.
        decode: Decoder that the user named; None: found from the outputs.

    Raises:
        UsageError: The name is unknown, what the metric needs is not installed, or the thing is no metric.
    """
    if isinstance(spec, Metric):
        return spec
    if not isinstance(spec, str):
        return _own_metric(spec, getattr(spec, "__name__", type(spec).__name__))
    if is_symbol(spec):
        return _own_metric(load_symbol(spec), spec)
    known = plugins.names(METRICS)
    if spec not in known:
        raise UsageError(f"metric '{spec}' is not known{nearest(spec, known)} (or module:function)")
    made = plugins.load(METRICS, spec, "metric")(Reader(dict(metadata or {}), decode))
    if not isinstance(made, Metric):
        raise OptimizationError(f"entry point '{spec}' in group {METRICS} makes no Metric")
    return made


def _own_metric(thing: Any, name: str) -> Metric:
    if inspect.isclass(thing) or (callable(thing) and not _accumulates(thing) and not _takes(thing, 2)):
        return Metric(name, thing, _lower_is_better(_made(thing, name)))
    if _accumulates(thing):
        return Metric(name, _restarts(thing, name), _lower_is_better(thing))
    if not callable(thing):
        raise UsageError(f"metric {name} is neither a function nor has it update and compute")
    return Metric(name, lambda: Average(thing), _lower_is_better(thing))


def _lower_is_better(thing: Any) -> bool:
    return bool(getattr(thing, "lower_is_better", False))


def _accumulates(thing: Any) -> bool:
    return callable(getattr(thing, "update", None)) and callable(getattr(thing, "compute", None))


def _made(factory: Callable[[], Any], name: str) -> Any:
    """Return what a class or function makes, refused unless it can be updated and computed."""
    if not _takes(factory, 0):
        raise UsageError(f"metric {name} should take two arguments, (outputs, sample), or none and make an object")
    try:
        made = factory()
    except OnnxoptError:
        raise
    except Exception as error:
        raise UsageError(f"metric {name} cannot be made: {error!r}") from error
    if not _accumulates(made):
        raise UsageError(f"metric {name} makes a {type(made).__name__} that lacks update or compute")
    return made


def _restarts(thing: Any, name: str) -> Callable[[], Accumulator]:
    """Return what gives the object in its present state again each time; samples must not pile up."""
    try:
        pristine = copy.deepcopy(thing)
    except Exception as error:
        raise UsageError(f"metric {name} cannot be copied ({error}); give the class instead") from error
    return lambda: copy.deepcopy(pristine)


def _takes(function: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:  # built-in without a signature: only calling it can tell
        return count == 2
    return True

"""Times of ONNX Runtime's kernels, from its profile and from the graph that it really runs.

The profile knows kernels by the names of the optimized graph's nodes. Optimizers name a node after one that it
replaces, after a tensor of that, or after both, and append what they did:

* `X_nchwc`: a convolution in blocks of channels;
* `X_token_7`: made unique, or moved to another layout;
* `X/QuickGeluFusion/`: fused to one activation;
* `X_new_reshape`: two fused to one Reshape.

What is before that is the name of a node or tensor of the model that was given.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import onnx

from onnxopt.runtime.kernel_time import WARM_UP, KernelTime, undisturbed

SUFFIX = "_kernel_time"
APPENDED = re.compile(r"(_nchwc|_token_\d+|/\w+Fusion/?|_new_reshape)$")
PRECISIONS = {"float": "float32", "float16": "float16", "bfloat16": "bfloat16", "double": "float64"}


def kernels_of(events: list[dict[str, Any]], graph: onnx.GraphProto) -> list[KernelTime]:
    """Time of each kernel.

    Args:
        events: The profile of a session's runs, the first `WARM_UP` of which do not count.
        graph: The optimized graph that they ran.
    """
    durations: dict[str, list[float]] = defaultdict(list)
    told: dict[str, dict[str, Any]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(SUFFIX):
            name = event["name"].removesuffix(SUFFIX)
            durations[name].append(event["dur"] / 1000)
            told.setdefault(name, event["args"])
    readers = _readers(graph)
    nodes = {node.name: node for node in graph.node}
    return [
        KernelTime(
            name=name,
            op=arguments["op_name"],
            milliseconds=undisturbed(durations[name][WARM_UP:]),
            precision=_precision(arguments),
            origins=tuple(dict.fromkeys(_origins(name, nodes.get(name)))),
            readers=readers.get(name, ()),
            moved=int(arguments["activation_size"]) + int(arguments["output_size"]),
        )
        for name, arguments in told.items()
    ]


def _readers(graph: onnx.GraphProto) -> dict[str, tuple[str, ...]]:
    makers = {tensor: node.name for node in graph.node for tensor in node.output if tensor}
    found: dict[str, list[str]] = defaultdict(list)
    for node in graph.node:
        for tensor in node.input:
            if tensor in makers:
                found[makers[tensor]].append(node.name)
    return {name: tuple(dict.fromkeys(names)) for name, names in found.items()}


def _precision(arguments: dict[str, Any]) -> str:
    """From the first input that is a number with a fraction, or stands for one."""
    for types in (arguments["input_type_shape"], arguments["output_type_shape"]):
        for kind in (kind for entry in types for kind in entry):
            if kind in {"uint8", "int8"}:
                return "int8"
            if kind in PRECISIONS:
                return PRECISIONS[kind]
    return ""


def _origins(name: str, node: onnx.NodeProto | None) -> Iterator[str]:
    """The name, what is left of it without what optimizers append, and the names of what the node writes."""
    yield name
    while (shorter := APPENDED.sub("", name)) != name:
        name = shorter
        yield name
    yield from node.output if node is not None else ()

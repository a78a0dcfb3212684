"""One walk over a quantized model that refits its int8 layers in order of execution.

Each layer's statistics are taken with all layers before it refitted already (*sequential* correction): errors are
made up for once, where they arise, and never twice.
"""

from collections.abc import Sequence

import numpy as np

from onnxopt.analysis.recovery.layers import QuantizedLayer, find_layers
from onnxopt.analysis.recovery.moments import Float32Array, measure_moments
from onnxopt.analysis.recovery.patches import Patches, read_patches
from onnxopt.analysis.recovery.refit import Choices, Fitted, Problem, refit
from onnxopt.analysis.recovery.walk import Walk
from onnxopt.data import Feeds
from onnxopt.graph import Array, Graph
from onnxopt.targets import Target

Pairs = Sequence[tuple[Float32Array, Float32Array]]
ROWS = 4096  # per layer, from all samples together
LONGEST = 2 * ROWS  # inputs of a layer whose weights are refitted; so few rows say nothing about more


def recover(
    graph: Graph,
    reference: Graph,
    target: Target,
    samples: Sequence[Feeds],
    choices: Choices,
    *,
    judged: Sequence[Feeds] = (),
    threads: int = 1,
) -> int:
    """Refit the int8 layers of a quantized graph, in place.

    Args:
        graph: The quantized model.
        reference: The float model that it was made of, tensors named alike.
        target: Whose number formats it is in.
        samples: Inputs; what is held of each is what a walk needs (see `walk`).
        choices: What to do with each layer.
        judged: Inputs that nothing is fitted to; they choose how far weights are refitted, layer by layer.
        threads: Threads of the sessions.

    Returns:
        How many layers were refitted.
    """
    known = {t.name for n in reference.nodes for t in n.outputs}
    layers = [
        (layer, patches)
        for layer in find_layers(graph)
        if layer.output in known and (patches := _read(layer, len(samples)))
    ]
    for layer, _ in layers:
        layer.prepare(integer_bias=target.int32_bias, with_bias=choices.bias)
    outputs = {layer.output for layer, _ in layers}
    everything = [*samples, *judged]
    floating = Walk(reference, everything, outputs, optimized=True, threads=threads)
    rounded = Walk(graph, everything, (), optimized=False, threads=threads)
    weights = {n.outputs[0].name: reference.constant(n.inputs[1]) for n in reference.nodes if len(n.inputs) > 1}
    for layer, patches in layers:
        floating.past(layer.output)
        rounded.before(layer.node)
        pairs = list(zip(rounded.values(layer.input), floating.values(layer.output), strict=True))
        weight = weights[layer.output]
        assert weight is not None
        parts = pairs[: len(samples)], pairs[len(samples) :]
        _refit(layer, patches, parts, np.asarray(weight), choices, target.weight.limit)
        floating.drop(layer.output)
    return len(layers)


def transfer(source: Graph, graph: Graph, target: Target) -> int:
    """Take over codes, scales and biases of a refitted copy of a graph.

    Returns:
        How many layers are not what they were.
    """
    count = 0
    for refitted, layer in zip(find_layers(source), find_layers(graph), strict=True):
        bias = refitted.bias()
        new, old = ((x.codes, x.scale, x.bias()) for x in (refitted, layer))
        if all(
            b is None if a is None else b is not None and np.array_equal(a, b) for a, b in zip(new, old, strict=True)
        ):
            continue
        count += 1
        layer.prepare(integer_bias=target.int32_bias, with_bias=bias is not None)
        layer.set_weight(refitted.codes, refitted.scale)
        if bias is not None:
            layer.set_bias(bias)
    return count


def _read(layer: QuantizedLayer, samples: int) -> Patches | None:
    patches = read_patches(layer.node, layer.codes.shape, most=-(-ROWS // samples))
    return patches if patches is not None and layer.axis in {None, patches.axis} else None


def _refit(
    layer: QuantizedLayer, patches: Patches, pairs: tuple[Pairs, Pairs], weight: Array, choices: Choices, limit: int
) -> None:
    """Refit a layer to the first pairs of inputs and wanted outputs; the second ones choose how far."""
    groups, columns, _ = patches.shape
    shape = groups, columns
    bias = layer.bias()
    bias = bias if bias is not None and bias.size == groups * columns else None
    offset = bias.reshape(shape) if bias is not None else np.zeros(shape, np.float32)
    now = patches.matrix(layer.weight())
    if patches.shape[2] > LONGEST:
        choices = Choices(bias=choices.bias)
    means_alone = not (choices.refit or choices.scales or choices.rounding)
    moments, judged = (
        measure_moments(patches, part, now, offset, means_alone=means_alone) if part else None for part in pairs
    )
    assert moments is not None
    judged = None if means_alone else judged
    start = Fitted(patches.matrix(layer.codes), np.broadcast_to(layer.scale, groups * columns).reshape(shape), bias)
    least = layer.least_scale(bias)
    least = least.reshape(shape) if least is not None else None
    found = refit(Problem(moments, patches.matrix(weight), start, limit, least), choices, judged)
    layer.set_weight(patches.weight(found.codes), found.scale.reshape(-1) if layer.axis is not None else layer.scale)
    if found.bias is not None:
        layer.set_bias(found.bias)

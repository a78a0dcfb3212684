"""Which Resize nodes repeat every pixel a whole number of times, and nothing else."""

from onnxopt.analysis.shapes import Shapes
from onnxopt.graph import Graph, Node, is_standard

# Pairs of coordinate_transformation_mode and nearest_mode under which pixel i of the output is pixel i // factor of
# the input (operator set 13, Resize). With half pixels the source lies within half a pixel of it and never on an edge.
REPEATING = {
    ("asymmetric", "floor"),
    ("half_pixel", "round_prefer_floor"),
    ("half_pixel", "round_prefer_ceil"),
    ("pytorch_half_pixel", "round_prefer_floor"),
    ("pytorch_half_pixel", "round_prefer_ceil"),
}


def repeats(graph: Graph, node: Node, shapes: Shapes) -> tuple[int, int] | None:
    """How often a nearest-neighbour Resize of pictures repeats each pixel.

    Args:
        graph: The model, from operator set 11 on.
        node: Any node.
        shapes: Its shapes.

    Returns:
        Factors of height and width, at least one of them above 1; None for every other node.
    """
    if node.op != "Resize" or not is_standard(node) or graph.opset < 11:
        return None
    mode = (
        node.attrs.get("coordinate_transformation_mode", "half_pixel"),
        node.attrs.get("nearest_mode", "round_prefer_floor"),
    )
    if node.attrs.get("mode", "nearest") != "nearest" or mode not in REPEATING or "axes" in node.attrs:
        return None
    scales = _scales(graph, node, shapes)
    if scales is None or len(scales) != 4 or scales[:2] != [1, 1]:
        return None
    height, width = (int(s) for s in scales[2:])
    whole = [height, width] == scales[2:] and min(height, width) >= 1 and max(height, width) > 1
    return (height, width) if whole else None


def _scales(graph: Graph, node: Node, shapes: Shapes) -> list[float] | None:
    given = graph.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else None
    if given is not None and given.size:
        return [float(s) for s in given]
    before, after = shapes.static(node.inputs[0]), shapes.static(node.outputs[0])
    if before is None or after is None or len(before) != len(after) or 0 in before:
        return None
    return [a / b for a, b in zip(after, before, strict=True)]

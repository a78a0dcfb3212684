"""Outputs taken apart where their parts have different meanings.

A detector's boxes span hundreds of pixels and its scores span one, often in one tensor. An SQNR over the whole tensor
is that of the boxes alone: scores may be ruined and nobody sees it. So boxes and scores are judged apart.
"""

from collections.abc import Mapping

import numpy as np

from onnxopt.data import Feeds
from onnxopt.evaluation.detection import find_layout
from onnxopt.graph import Array

BOX = 4  # numbers of a box, always first


def output_parts(outputs: Mapping[str, Array], feeds: Feeds, metadata: Mapping[str, str]) -> dict[str, Array]:
    """Float outputs by name; a detector's is given as `NAME (boxes)` and `NAME (scores)`.

    Args:
        outputs: What the model gave for one sample.
        feeds: What it was fed.
        metadata: The model's `metadata_props`.
    """
    parts = {name: values for name, values in outputs.items() if values.dtype.kind == "f"}
    layout = find_layout(parts, feeds, metadata)
    if layout is not None:
        values = parts.pop(layout.output)
        rows = layout.kind != "columns" or layout.transposed
        columns = values if rows else np.swapaxes(values, 1, 2)
        parts[f"{layout.output} (boxes)"] = columns[..., :BOX]
        parts[f"{layout.output} (scores)"] = columns[..., BOX:]
    return parts

"""What a model's family is usually fed: knowledge of how it was trained, where its file tells whose it is.

1. The metadata of an Ultralytics export, as `onnxopt.data.infer_preprocess` reads it.
2. Boxes as YOLOX gives them. Its own code (release 0.1.1 and later) feeds BGR in 0..255, letterboxed at the top left
   with 114; that of other makers may differ, so what is measured comes first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxopt.data import PRESETS, InputSpec, Preprocess, infer_preprocess


@dataclass(frozen=True)
class Expected:
    """What a model of this family is usually fed.

    Attributes:
        preprocess: The preparation.
        reason: Why it is expected.
        sure: How sure that is, where measuring does not tell.
    """

    preprocess: Preprocess
    reason: str
    sure: float


def expected(metadata: Mapping[str, str], inputs: Sequence[InputSpec], *, is_yolox: bool) -> Expected | None:
    """Return what a model is expected to be fed, or None if it does not tell.

    Args:
        metadata: Its `metadata_props`.
        inputs: Its inputs.
        is_yolox: Whether its boxes come as YOLOX gives them.
    """
    inferred = infer_preprocess(metadata, inputs)
    if inferred is not None:
        return Expected(*inferred, 0.95)
    if is_yolox:
        return Expected(PRESETS["yolox"], "boxes come as YOLOX gives them, and that is how YOLOX is trained", 0.85)
    return None

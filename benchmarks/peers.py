"""The candidates that benchmarks compare: what onnxopt makes of a model, and what ONNX Runtime's own tools make of it.

ONNX Runtime's candidate is made as its documentation recommends for x86 with VNNI: `quant_pre_process`, then
`quantize_static` with the QDQ format, U8 activations, S8 weights per channel, minimum and maximum, its default choice
of nodes. Both tools get the same calibration pictures. For opsets below 13, where `quantize_static` refuses weights
per channel, the model is first raised with `onnx.version_converter`, as its user would have to do.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnx.version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from workbench import Subject, say

from onnxopt import Result, optimize
from onnxopt.data import Array, Dataset

PER_CHANNEL_OPSET = 13  # QuantizeLinear has an axis since then
ORT_NAME = "quantize_static"
ORT_FLOAT_STEM_NAME = "quantize_static, stem float"


def onnxopt_candidate(subject: Subject, passes: str, samples: int, file: Path) -> Result:
    """Run onnxopt's passes, calibrated on the subject's pictures, and write the model to `file`.

    Args:
        subject: The model.
        passes: Pipeline text.
        samples: How many pictures to use at most, the held-out ones included.
        file: Where the model goes.
    """
    result = optimize(subject.file, passes, data=subject.samples(samples))
    result.save(file)
    for stage in result.report.stages:
        if not stage.kept:
            say(f"{subject.name}: onnxopt undid {stage.text}: {stage.reason}")
    return result


def quantize_static_candidate(subject: Subject, samples: int, file: Path, *, float_stem: bool = False) -> None:
    """Quantize with ONNX Runtime's own tools and write the model to `file`.

    Args:
        subject: The model.
        samples: How many pictures to calibrate on at most.
        file: Where the model goes.
        float_stem: Exclude the first convolution, which reads the picture, by hand.
    """
    prepared = file.with_suffix(".prepared.onnx")
    with quiet():
        quant_pre_process(_raised(subject.file), prepared)
        model = onnx.load(prepared)
        quantize_static(
            prepared,
            file,
            Reader(subject.samples(samples)),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[stem(model)] if float_stem else None,
        )
    prepared.unlink()


def _raised(file: Path) -> onnx.ModelProto:
    model = onnx.load(file)
    opset = next(entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"})
    if opset >= PER_CHANNEL_OPSET:
        return model
    return onnx.version_converter.convert_version(model, PER_CHANNEL_OPSET)


def stem(model: onnx.ModelProto) -> str:
    """Name of the first convolution."""
    return next(node.name for node in model.graph.node if node.op_type == "Conv")


class Reader(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime carries no types
    """Feeds for ONNX Runtime's calibrators."""

    def __init__(self, samples: Dataset) -> None:
        self._feeds: Iterator[dict[str, Array]] = (sample.feeds for sample in samples)

    def get_next(self) -> dict[str, Array] | None:
        """Return the next sample's feeds, or None after the last."""
        return next(self._feeds, None)


@contextlib.contextmanager
def quiet() -> Iterator[Any]:
    """Keep a peer's progress and advice out of the tables."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as said, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield said
    finally:
        logging.disable(before)

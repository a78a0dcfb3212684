"""The candidates that benchmarks compare: what onnxopt makes of a model, and what other tools make of it.

ONNX Runtime's candidate is made as its documentation recommends for x86 with VNNI: `quant_pre_process`, then
`quantize_static` with the QDQ format, U8 activations, S8 weights per channel, minimum and maximum, its default choice
of nodes. Both tools get the same calibration pictures. For opsets below 13, where `quantize_static` refuses weights
per channel, the model is first raised with `onnx.version_converter`, as its user would have to do.

Tools that cannot live in onnxopt's environment have one of their own, made from `requirements-peers.txt`; the argument
`--peers-python` names its Python, which runs `foreign/`. They get the same calibration pictures, as arrays. Where the
argument is not given they are named and left out.
"""

import contextlib
import io
import logging
import subprocess
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from workbench import REPOSITORY, Subject, say

from onnxopt import Result, optimize
from onnxopt.data import Array, Dataset
from onnxopt.errors import OnnxoptError

PER_CHANNEL_OPSET = 13  # QuantizeLinear has an axis since then
ORT_NAME = "quantize_static"
ORT_FLOAT_STEM_NAME = "quantize_static, stem float"
NNCF_ONNX_NAME = "NNCF, ONNX"
NNCF_OPENVINO_NAME = "NNCF, OpenVINO"
MODELOPT_NAME = "modelopt"
# Module of `foreign/` and the format that it writes.
FOREIGN = {
    NNCF_ONNX_NAME: ("with_nncf", ".onnx"),
    NNCF_OPENVINO_NAME: ("with_nncf", ".xml"),
    MODELOPT_NAME: ("with_modelopt", ".onnx"),
}


@dataclass(frozen=True)
class Maker:
    """How a candidate is made.

    Attributes:
        name: What tables call it.
        make: Writes it to the file given.
        suffix: Of that file.
    """

    name: str
    make: Callable[[Path], object]
    suffix: str = ".onnx"


def make_all(subject: Subject, makers: Iterable[Maker], folder: Path) -> dict[str, Path]:
    """Make the candidates; one of another tool that cannot be made is left out, and why is said.

    Returns:
        Name to file, in the order given. What already lies in `folder` is taken from there.

    Raises:
        OnnxoptError: onnxopt fails.
    """
    files = {}
    for number, maker in enumerate(makers):
        file = folder / f"{subject.name}.{number}{maker.suffix}"
        try:
            if file.is_file():
                say(f"{subject.name}: {maker.name} is taken from {file}")
            else:
                maker.make(file)
        except OnnxoptError:
            raise
        except Exception as error:  # noqa: BLE001 - that a peer fails is a result
            say(f"{subject.name}: {maker.name} failed: {type(error).__name__}: {str(error).splitlines()[0]}")
            continue
        files[maker.name] = file
    return files


def onnxopt_candidate(subject: Subject, passes: str, samples: int, file: Path, *, target: str = "ort") -> Result:
    """Run onnxopt's passes, calibrated on the subject's pictures, and write the model to `file`.

    Args:
        subject: The model.
        passes: Pipeline text.
        samples: How many pictures to use at most, the held-out ones included.
        file: Where the model goes.
        target: Of `onnxopt targets`.
    """
    result = optimize(subject.file, passes, target=target, data=subject.samples(samples))
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


def foreign_makers(subject: Subject, python: Path | None, samples: int, names: Iterable[str]) -> list[Maker]:
    """Makers of the named tools of `FOREIGN`; none, which is said, where the peers have no environment.

    Args:
        subject: The model.
        python: Of the peers' environment.
        samples: How many pictures to calibrate on at most.
        names: Of `FOREIGN`.
    """
    if python is None:
        say(f"{subject.name}: left out: {'; '.join(names)} (--peers-python, see requirements-peers.txt)")
        return []
    return [
        Maker(name, partial(_foreign_candidate, subject, python, FOREIGN[name][0], samples), FOREIGN[name][1])
        for name in names
    ]


def _foreign_candidate(subject: Subject, python: Path, tool: str, samples: int, file: Path) -> None:
    with TemporaryDirectory() as folder:
        arrays = Path(folder, "arrays.npz")
        feeds = [sample.feeds for sample in subject.samples(samples)]
        np.savez(arrays, allow_pickle=False, **{name: np.stack([each[name] for each in feeds]) for name in feeds[0]})
        del feeds
        files = (subject.file.absolute(), arrays, file.absolute())  # the tools leave files where they run
        command = [python.absolute(), REPOSITORY / "benchmarks" / "foreign", tool, *files]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=folder, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1])


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

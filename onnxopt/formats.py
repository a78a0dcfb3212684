"""Files that runtimes load, told by their endings.

| ending | what | for |
|---|---|---|
| `.onnx` | ONNX | every target |
| `.xml` | OpenVINO's intermediate representation, weights in the `.bin` beside it | openvino |
| `.ort` | ONNX Runtime's format, graph optimizations applied | ort and its kinds |
| `.engine` | a TensorRT engine for the GPU that is here, built by `trtexec` | tensorrt |

Each appears whole or not at all. An `.ort` file leaves out what ONNX Runtime would arrange for the vector width of
one processor (NCHWc blocks), so that it runs on any of its architecture.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import numpy as np
from onnx import helper

from onnxopt import model_io
from onnxopt.errors import OptimizationError, UsageError
from onnxopt.graph import Graph
from onnxopt.runtime.adapter import InputFacts
from onnxopt.targets import Target

Shapes = Mapping[str, Sequence[int]]
SIGNATURE = b"onnxopt.version"  # stands in the metadata of all that onnxopt writes
TRTEXEC = "trtexec"
WIDTH_BOUND = "NchwcTransformer"  # ONNX Runtime's name for what ties a graph to a vector width


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        ending: With its dot.
        targets: What the names of the targets that it is for begin with; "" for all.
        write: Writes a graph into a file, given the sizes of dynamic inputs; gives the files written.
        needs: What has to be here to write it.
    """

    ending: str
    targets: str
    write: Callable[[Graph, Path, Shapes], list[Path]]
    needs: str = ""


def check(path: Path, target: Target) -> None:
    """Refuse before any work a file that its target could not load, or that cannot be written here.

    Raises:
        UsageError: The ending is unknown, does not fit the target, or needs what is not here.
    """
    form = _form(path)
    if not target.name.startswith(form.targets):
        fitting = " or ".join(f.ending for f in FORMATS.values() if target.name.startswith(f.targets))
        raise UsageError(f"{path}: target '{target.name}' loads no {form.ending} file; give one that ends in {fitting}")
    if form.needs == TRTEXEC and shutil.which(TRTEXEC) is None:
        raise UsageError(
            f"{path}: there is no TensorRT (trtexec) on this machine; write {path.with_suffix('.onnx')} and build the "
            "engine where it is to run, with the line that is printed then"
        )
    if form.needs == "openvino":
        _openvino(path)


def save(graph: Graph, path: str | Path, shapes: Shapes | None = None) -> list[Path]:
    """Write a model in the format of the file's ending, whole or not at all.

    Args:
        graph: The model.
        path: Where to.
        shapes: Input name to size, for engines of models whose inputs are dynamic.

    Returns:
        The files written.

    Raises:
        UsageError: An unknown ending, a folder that cannot be written, a full disk, or the format's package is missing.
        OptimizationError: The runtime does not take the model.
    """
    file = Path(path)
    return _form(file).write(graph, file, shapes or {})


def size_of(graph: Graph, ending: str, shapes: Shapes | None = None) -> int:
    """Bytes of all files that `save` would write; of a `.engine`, those of the ONNX model that it is built from.

    Args:
        graph: The model.
        ending: Of the file.
        shapes: As for `save`.

    Raises:
        UsageError: As `save` does.
        OptimizationError: As `save` does.
    """
    if ending in {".onnx", ".engine"}:
        return graph.to_proto().ByteSize()
    with tempfile.TemporaryDirectory() as folder:
        save(graph, Path(folder) / f"model{ending}", shapes)
        return sum(file.stat().st_size for file in Path(folder).iterdir())


def ending_of(path: Path) -> str:
    """The ending that says a file's format; without one it is ONNX."""
    return path.suffix or ".onnx"


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that a model of this name will consist of, as far as its ending tells."""
    return (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,)


def is_ours(path: Path) -> bool:
    """Whether onnxopt wrote a model, of whichever format; a `.bin` belongs to the `.xml` beside it."""
    path = path.with_suffix(".xml") if path.suffix == ".bin" else path
    if not path.is_file():
        return False
    if path.suffix in {"", ".onnx"}:
        try:
            return SIGNATURE.decode() in model_io.read_metadata(path)
        except UsageError:
            return False
    return SIGNATURE in path.read_bytes()


def stand_in(path: Path, inputs: Iterable[InputFacts]) -> Graph:
    """A graph with the inputs of a file that only its runtime can read: what sizes are found for.

    Args:
        path: The file.
        inputs: What a session of it says they are.
    """
    kinds = [(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), sizes) for name, dtype, sizes in inputs]
    nodes = [helper.make_node("Identity", [name], [f"{name}/out"]) for name, _, _ in kinds]
    given, made = ([helper.make_tensor_value_info(n + end, k, s) for n, k, s in kinds] for end in ("", "/out"))
    return Graph.from_proto(helper.make_model(helper.make_graph(nodes, path.stem, given, made)), source=path.name)


def trtexec_line(model: Path, graph: Graph, shapes: Shapes) -> list[str]:
    """The command that builds a TensorRT engine of a model.

    The network is strongly typed: each layer runs in the type that the ONNX file says, as TensorRT 11 has it always.

    Args:
        model: The ONNX file.
        graph: What stands in it.
        shapes: Input name to size; those of dynamic inputs become the one size that the engine is built for.
    """
    command = [TRTEXEC, f"--onnx={model}", f"--saveEngine={model.with_suffix('.engine')}", "--stronglyTyped"]
    dynamic = [t.name for t in graph.inputs if not all(isinstance(size, int) for size in t.shape or ("?",))]
    sizes = ",".join(f"{name}:{'x'.join(map(str, shapes[name]))}" for name in dynamic)
    return command + [f"--{which}Shapes={sizes}" for which in ("min", "opt", "max") if sizes]


def _form(path: Path) -> Format:
    form = FORMATS.get(ending_of(path))
    if form is None:
        raise UsageError(f"{path}: a model ends in {', '.join(FORMATS)}, not in {path.suffix}")
    return form


def _write_onnx(graph: Graph, path: Path, shapes: Shapes) -> list[Path]:  # noqa: ARG001
    return model_io.save(graph, path)


def _write_ir(graph: Graph, path: Path, shapes: Shapes) -> list[Path]:  # noqa: ARG001
    openvino = _openvino(path)
    with tempfile.TemporaryDirectory() as folder:
        source, written = Path(folder) / "model.onnx", Path(folder) / "model.xml"
        model_io.save(graph, source)
        try:
            model = openvino.Core().read_model(source)
            _name_nodes(model)
            # In half precision, its default, scales and float weights would be others than those that were measured.
            openvino.save_model(model, written, compress_to_fp16=False)
        except RuntimeError as error:
            raise OptimizationError(f"OpenVINO cannot convert the model: {error}") from error
        return _place({path.with_suffix(".bin"): written.with_suffix(".bin"), path: written})


def _name_nodes(model: Any) -> None:
    """Name by place what OpenVINO numbers through a process, so that the same model becomes the same bytes."""
    for place, node in enumerate(model.get_ordered_ops()):
        if node.get_friendly_name() == node.get_name():
            node.set_friendly_name(f"{node.get_type_name()}_{place}")


def _write_ort(graph: Graph, path: Path, shapes: Shapes) -> list[Path]:  # noqa: ARG001
    onnxruntime = import_module("onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        source, written = Path(folder) / "model.onnx", Path(folder) / "model.ort"
        model_io.save(graph, source)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(written)
        options.add_session_config_entry("session.save_model_format", "ORT")
        try:
            onnxruntime.InferenceSession(
                str(source), options, providers=["CPUExecutionProvider"], disabled_optimizers=[WIDTH_BOUND]
            )
        except Exception as error:  # ORT's exceptions share no base class
            raise OptimizationError(f"ONNX Runtime cannot convert the model: {error}") from error
        return _place({path: written})


def _write_engine(graph: Graph, path: Path, shapes: Shapes) -> list[Path]:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.onnx"
        model_io.save(graph, source)
        done = subprocess.run(  # noqa: S603  (the user's own trtexec)
            trtexec_line(source, graph, shapes), capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = [line for line in (done.stdout + done.stderr).splitlines() if "[E]" in line] or ["no reason given"]
            raise OptimizationError(f"trtexec cannot build an engine: {said[0]}")
        return _place({path: source.with_suffix(".engine")})


def _place(files: Mapping[Path, Path]) -> list[Path]:
    """Copy finished files to where they are wanted, all or none; the last is the one that was asked for."""
    places = list(files)
    try:
        model_io.write_whole({place: partial(_copy, source) for place, source in files.items()})
    except OSError as error:
        raise UsageError(f"{places[-1]}: cannot be written ({error.strerror}); give another place with -o") from None
    return places[::-1]


def _copy(source: Path, stream: IO[bytes]) -> None:
    with source.open("rb") as content:
        shutil.copyfileobj(content, stream)


def _openvino(path: Path) -> Any:
    try:
        return import_module("openvino")
    except ImportError:
        raise UsageError(f"{path}: that takes OpenVINO; pip install 'onnxopt[openvino]'") from None


FORMATS = {
    form.ending: form
    for form in (
        Format(".onnx", "", _write_onnx),
        Format(".xml", "openvino", _write_ir, needs="openvino"),
        Format(".ort", "ort", _write_ort),
        Format(".engine", "tensorrt", _write_engine, needs=TRTEXEC),
    )
}

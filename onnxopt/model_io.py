"""Reading and writing model files.

* The input file is never written.
* An output appears whole or not at all: it is written to a temporary file in the same folder, flushed to disk and
  renamed.
* A protobuf file ends at 2 GB. A larger model gets its weights in `<name>.data` beside it (external data), as does
  a model when it is asked for.
"""

import contextlib
import math
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import IO

import onnx
from google.protobuf.message import DecodeError
from onnx import external_data_helper, helper

from onnxopt.errors import UsageError
from onnxopt.graph import Graph

PROTOBUF_LIMIT = 2**31 - 2**20  # bytes; headroom for the structure beside the weights
EXTERNAL_THRESHOLD = 1024  # bytes; smaller tensors stay in the model file
NEWEST_OPSET = onnx.defs.onnx_opset_version()


def load(path: str | Path) -> Graph:
    """Read an ONNX model, external data included.

    Raises:
        UsageError: No such file, not an ONNX model, truncated, external data missing or outside the model's
            folder, no inputs, damaged (names, sizes, a circle of nodes), or an opset or IR version that the installed
            onnx does not know.
    """
    file = Path(path)
    model = _read(file)
    _read_external(model, file)
    _check_readable(model, file)
    return Graph.from_proto(model, source=file.name)


def _read(file: Path) -> onnx.ModelProto:
    if file.exists() and not file.is_dir() and not file.is_file():
        raise UsageError(f"{file}: is a device or a pipe; give an .onnx file")  # which may never end
    try:
        model = onnx.load_model(file, format="protobuf", load_external_data=False)
    except FileNotFoundError:
        raise UsageError(f"{file}: no such file") from None
    except IsADirectoryError:
        raise UsageError(f"{file}: is a folder; give an .onnx file") from None
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror})") from None
    except DecodeError:
        raise UsageError(f"{file}: not an ONNX model, or cut off; download or export it again") from None
    if not model.HasField("graph"):
        raise UsageError(f"{file}: not an ONNX model (it holds no graph); export it again")
    if not model.opset_import:
        raise UsageError(f"{file}: the model does not say which operator set it uses; export it again")
    return model


def _external_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for tensor in external_data_helper._get_all_tensors(model):  # noqa: SLF001  (onnx offers no public walk)
        if external_data_helper.uses_external_data(tensor):
            yield tensor


def _read_external(model: onnx.ModelProto, file: Path) -> None:
    folder = file.resolve().parent
    for tensor in _external_tensors(model):
        location = _location(tensor, file)
        data = (folder / location).resolve() if location else folder
        if Path(location).is_absolute() or not data.is_relative_to(folder):
            raise UsageError(
                f"{file}: tensor '{tensor.name}' wants its data from '{location}', outside the model's folder"
            )
        if not data.is_file():
            raise UsageError(
                f"{file}: external data '{location}' of tensor '{tensor.name}' is missing; put it beside the model"
            )
        try:
            external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        except (ValueError, OSError, onnx.checker.ValidationError) as error:
            raise UsageError(
                f"{file}: external data '{location}' of tensor '{tensor.name}' is unreadable: {error}"
            ) from None
        _check_length(tensor, location, file)
        tensor.ClearField("data_location")
        del tensor.external_data[:]


def _location(tensor: onnx.TensorProto, file: Path) -> str:
    """Where a tensor's external data lie, as the file says it."""
    try:
        return str(external_data_helper.ExternalDataInfo(tensor).location)
    except ValueError as error:  # an offset or a length that is no number, or negative
        raise UsageError(
            f"{file}: what the model says of the external data of tensor '{tensor.name}' cannot be read: {error}"
        ) from None


def _check_length(tensor: onnx.TensorProto, location: str, file: Path) -> None:
    wanted = _wanted_bytes(tensor)
    if len(tensor.raw_data) < wanted:
        raise UsageError(
            f"{file}: external data '{location}' is cut off: tensor '{tensor.name}' needs {wanted} bytes, "
            f"{len(tensor.raw_data)} are there"
        )


def _wanted_bytes(tensor: onnx.TensorProto) -> int:
    """Size of a tensor's raw data, from its type and dimensions."""
    count = math.prod(tensor.dims)
    packed = tensor.data_type in {onnx.TensorProto.INT4, onnx.TensorProto.UINT4, onnx.TensorProto.FLOAT4E2M1}
    if packed:
        return (count + 1) // 2
    return count * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _check_readable(model: onnx.ModelProto, file: Path) -> None:
    if model.ir_version > onnx.IR_VERSION:
        raise UsageError(
            f"{file}: IR version {model.ir_version} is not supported (up to {onnx.IR_VERSION} with onnx "
            f"{onnx.__version__}); export it with an older exporter or upgrade onnx"
        )
    for entry in model.opset_import:
        if entry.domain in {"", "ai.onnx"} and not 1 <= entry.version <= NEWEST_OPSET:
            raise UsageError(
                f"{file}: opset {entry.version} is not supported (1 to {NEWEST_OPSET} with onnx {onnx.__version__}); "
                "export it with a lower opset or upgrade onnx"
            )
    initializers = {t.name for t in model.graph.initializer}
    if all(value.name in initializers for value in model.graph.input):
        raise UsageError(f"{file}: the model has no inputs, so there is nothing to run or optimize")
    if not model.graph.output:
        raise UsageError(f"{file}: the model has no outputs")
    _check_initializers(model, file)
    _check_domains(model, file)
    _check_names(model, file)
    _check_order(model, file)


def _check_initializers(model: onnx.ModelProto, file: Path) -> None:
    known = set(onnx.TensorProto.DataType.values()) - {onnx.TensorProto.UNDEFINED}
    for tensor in model.graph.initializer:
        if tensor.data_type not in known or any(dim < 0 for dim in tensor.dims):
            raise UsageError(f"{file}: tensor '{tensor.name}' has no valid type and shape; the file is damaged")
        if tensor.HasField("raw_data") and len(tensor.raw_data) != _wanted_bytes(tensor):
            shape = "x".join(map(str, tensor.dims))
            raise UsageError(
                f"{file}: tensor '{tensor.name}' of shape {shape} needs {_wanted_bytes(tensor)} bytes and has "
                f"{len(tensor.raw_data)}; the file is damaged"
            )


def _check_domains(model: onnx.ModelProto, file: Path) -> None:
    imported = {"" if entry.domain == "ai.onnx" else entry.domain for entry in model.opset_import}
    for node in model.graph.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if domain not in imported:
            raise UsageError(
                f"{file}: {node.op_type} '{node.name}' is of operator set '{domain or 'ai.onnx'}', of which the file "
                "does not say the version (opset_import); add it, or export the model again"
            )


def _check_names(model: onnx.ModelProto, file: Path) -> None:
    known = {value.name for value in model.graph.input} | {t.name for t in model.graph.initializer}
    known |= {t.values.name for t in model.graph.sparse_initializer}
    known |= {name for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        missing = next((name for name in node.input if name and name not in known), None)
        if missing is not None:
            raise UsageError(
                f"{file}: {node.op_type} '{node.name}' reads '{missing}', which nothing produces; the file is damaged"
            )
    for value in model.graph.output:
        if value.name not in known:
            raise UsageError(f"{file}: output '{value.name}' is produced by nothing; the file is damaged")


def _check_order(model: onnx.ModelProto, file: Path) -> None:
    """See that the nodes can be put into an order of execution; they need not stand in one."""
    nodes = model.graph.node
    times = Counter(name for node in nodes for name in node.output if name)
    double = next((name for name, count in times.items() if count > 1), None)
    if double is not None:
        raise UsageError(f"{file}: '{double}' is produced by more than one node; the file is damaged")
    makers = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    needs = {i: {makers[name] for name in _reads(node) if name in makers} for i, node in enumerate(nodes)}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        node = nodes[error.args[1][0]]
        raise UsageError(
            f"{file}: {node.op_type} '{node.name}' depends on its own output; the file is damaged"
        ) from None


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, those that its nested graphs read from outside included."""
    yield from node.input
    for attribute in node.attribute:
        for graph in [attribute.g, *attribute.graphs]:
            own = {name for inner in graph.node for name in inner.output}
            yield from (name for inner in graph.node for name in _reads(inner) if name not in own)


def read_metadata(path: str | Path) -> dict[str, str]:
    """The `metadata_props` of a model file, without its external data.

    Raises:
        UsageError: No such file, or not an ONNX model.
    """
    return {p.key: p.value for p in _read(Path(path)).metadata_props}


def external_files(path: str | Path) -> list[Path]:
    """The files beside a model that hold its weights; none for most models.

    Raises:
        UsageError: No such file, or not an ONNX model.
    """
    file = Path(path)
    locations = {_location(tensor, file): None for tensor in _external_tensors(_read(file))}
    return [file.resolve().parent / location for location in locations]


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises:
        UsageError: The folder cannot be written, or the disk is full.
    """
    file = Path(path)
    try:
        write_whole({file: lambda stream: stream.write(text.encode())})
    except OSError as error:
        raise UsageError(f"{file}: cannot be written ({error.strerror})") from None


def save(graph: Graph, path: str | Path, *, external: bool | None = None) -> list[Path]:
    """Write a model, whole or not at all.

    Args:
        graph: The model.
        path: Where to.
        external: Put weights into `<name>.data` beside it; default: only where one file cannot hold them.

    Returns:
        The files written.

    Raises:
        UsageError: The folder cannot be written, or the disk is full.
    """
    file = destination(Path(path))  # beside which its weights are looked for
    model = graph.to_proto()
    if external is None:
        external = graph.nbytes() + sum(int(c._values.nbytes) for c in graph.unused_initializers) > PROTOBUF_LIMIT  # noqa: SLF001
    try:
        if not external:
            write_whole({file: lambda stream: stream.write(model.SerializeToString(deterministic=True))})
            return [file]
        data = file.with_name(file.name + ".data")
        write_whole(
            {
                data: lambda stream: _externalise(model, data.name, stream),
                file: lambda stream: stream.write(model.SerializeToString(deterministic=True)),
            }
        )
    except OSError as error:
        raise UsageError(f"{file}: cannot be written ({error.strerror}); give another place with -o") from None
    return [file, data]


def _externalise(model: onnx.ModelProto, location: str, stream: IO[bytes]) -> None:
    for tensor in model.graph.initializer:
        if not tensor.HasField("raw_data") or len(tensor.raw_data) < EXTERNAL_THRESHOLD:
            continue
        offset = -stream.tell() % 4096 + stream.tell()  # page-aligned, so that runtimes can map it
        stream.write(b"\0" * (offset - stream.tell()))
        stream.write(tensor.raw_data)
        entries = {"location": location, "offset": str(offset), "length": str(len(tensor.raw_data))}
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)


def write_whole(files: Mapping[Path, Callable[[IO[bytes]], object]]) -> None:
    """Write files, all or none: none gets its name before all are on the disk.

    A link stays, and what it leads to is written.

    Args:
        files: Place to what writes the content into a stream.

    Raises:
        OSError: A folder cannot be written, or the disk is full.
    """
    mine: list[Path] = []
    try:
        temporaries = []
        places = {destination(file): write for file, write in files.items()}
        for file, write in places.items():
            handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
            temporaries.append(Path(name))
            mine.append(temporaries[-1])
            _fill(handle, temporaries[-1], write)
        for file, temporary in zip(places, temporaries, strict=True):
            new = not file.exists()
            temporary.replace(file)
            if new:
                mine.append(file)
    except BaseException:
        for file in mine:
            with contextlib.suppress(OSError):
                file.unlink()
        raise


def destination(file: Path) -> Path:
    """Where the content of a file lies: what a link leads to, else the file itself."""
    return file.resolve() if file.is_symlink() else file


def _fill(handle: int, temporary: Path, write: Callable[[IO[bytes]], object]) -> None:
    with os.fdopen(handle, "wb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())
    mask = os.umask(0)
    os.umask(mask)
    temporary.chmod(0o666 & ~mask)  # mkstemp is private by default; a model is an ordinary file

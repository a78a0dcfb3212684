"""The file that is sent to a device: what it needs there, and how it talks."""

import ast
import io
import sys
from pathlib import Path

import numpy as np
import pytest

from onnxopt.runtime import runner

SOURCE = Path(runner.__file__).read_text()


def test_it_is_python_3_8():
    ast.parse(SOURCE, feature_version=(3, 8))


def test_it_needs_numpy_and_a_runtime_alone():
    wanted = set()
    for node in ast.walk(ast.parse(SOURCE)):
        if isinstance(node, ast.Import):
            wanted |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            wanted.add(node.module)
    assert wanted - sys.stdlib_module_names - {"collections.abc"} == {"numpy", "onnxruntime", "openvino"}


def test_messages_come_back_as_they_were():
    arrays = {"a": np.arange(6, dtype=np.uint8).reshape(2, 3), "b": np.float32(1.5), "c": np.zeros((0, 3), np.int64)}
    names, parts = runner.pack_arrays(arrays)
    stream = io.BytesIO()
    runner.write_message(stream, {"do": "run", "names": names}, parts)
    stream.seek(0)
    header, contents = runner.read_message(stream)
    assert header == {"do": "run", "names": ["a", "b", "c"]}
    for name, values in runner.unpack_arrays(header["names"], contents).items():
        np.testing.assert_array_equal(values, arrays[name], strict=name != "b")


def test_a_message_cut_off_is_an_end():
    stream = io.BytesIO()
    runner.write_message(stream, {"do": "run"}, [b"12345"])
    for length in (0, 4, 12, len(stream.getvalue()) - 1):
        with pytest.raises(EOFError):
            runner.read_message(io.BytesIO(stream.getvalue()[:length]))


def test_what_cannot_be_done_is_said_and_the_runner_goes_on(tmp_path):
    requests = io.BytesIO()
    runner.write_message(requests, {"do": "start", "engine": "no_such_runtime"})
    runner.write_message(requests, {"do": "start", "engine": "onnxruntime"})
    requests.seek(0)
    replies = io.BytesIO()
    with pytest.raises(EOFError):
        runner.serve(requests, replies)
    replies.seek(len(runner.GREETING))
    assert runner.read_message(replies)[0] == {
        "error": "No module named 'no_such_runtime'",
        "kind": "ModuleNotFoundError",
    }
    facts, _ = runner.read_message(replies)
    assert facts["version"].startswith("onnxruntime ")
    assert facts["architecture"] == runner.architecture()
    assert not Path(facts["folder"]).exists()

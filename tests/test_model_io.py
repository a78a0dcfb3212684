"""Files are read whole or refused in one sentence, and written whole or not at all."""

import os
import stat
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxopt import Graph, UsageError, load, save
from onnxopt import model_io as io
from onnxopt.testing import outputs_of, parse_graph, random_feeds

TEXT = "(float[1,64] x) => (float[1,64] y) <float[64,64] w, float[64] b> { a = MatMul (x, w)  y = Add (a, b) }"


@pytest.fixture
def graph():
    graph = parse_graph(TEXT)
    graph.set_metadata("names", "{0: 'cat'}")
    return graph


@pytest.fixture
def external(tmp_path, graph):
    """A model whose weights stand in a file of their own."""
    save(graph, tmp_path / "model.onnx", external=True)
    return tmp_path / "model.onnx"


def edit(path: Path, change) -> None:
    """Change a model file without reading its external data."""
    model = onnx.load_model(path, load_external_data=False)
    change(model)
    path.write_bytes(model.SerializeToString())


def point_to(location: str):
    """Let every external tensor take its data from `location`."""

    def change(model):
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location

    return change


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_saved_model_is_loaded_as_it_was(tmp_path, graph):
    assert save(graph, tmp_path / "model.onnx") == [tmp_path / "model.onnx"]
    again = load(tmp_path / "model.onnx")
    assert again.digest() == graph.digest()
    assert again.source == "model.onnx"
    assert names(tmp_path) == ["model.onnx"]


def test_file_is_that_of_the_original_byte_by_byte(tmp_path, graph):
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    save(graph, first)
    save(load(first), second)
    assert first.read_bytes() == second.read_bytes()


def test_external_data_is_written_and_read(tmp_path, external, graph):
    assert names(tmp_path) == ["model.onnx", "model.onnx.data"]
    assert external.stat().st_size < 4000
    model = onnx.load_model(external, load_external_data=False)
    large, small = model.graph.initializer
    info = {e.key: e.value for e in large.external_data}
    assert info == {"location": "model.onnx.data", "offset": "0", "length": str(64 * 64 * 4)}
    assert not small.external_data, "small weights stay in the model"
    again = load(external)
    feeds = random_feeds(graph)
    np.testing.assert_array_equal(outputs_of(again, feeds)["y"], outputs_of(graph, feeds)["y"])


def test_runtimes_read_the_external_data(external, graph):
    onnx.checker.check_model(str(external), full_check=True)
    from onnxopt.runtime.ort import OrtSession

    feeds = random_feeds(graph)
    np.testing.assert_array_equal(OrtSession(external).run(feeds)["y"], OrtSession(graph.to_proto()).run(feeds)["y"])


def test_model_with_external_data_is_saved_as_one_file(tmp_path, external, graph):
    folder = tmp_path / "other"
    folder.mkdir()
    save(load(external), folder / "one.onnx")
    assert names(folder) == ["one.onnx"]
    assert load(folder / "one.onnx").digest() == graph.digest()


def test_external_data_of_attributes_and_nested_graphs_is_read(tmp_path):
    weight = numpy_helper.from_array(np.arange(400, dtype=np.float32), "k")
    branches = {}
    for name in ("then_branch", "else_branch"):
        nodes = [helper.make_node("Constant", [], ["c"], value=weight), helper.make_node("Add", ["c", "k"], ["p"])]
        out = helper.make_tensor_value_info("p", TensorProto.FLOAT, [400])
        branches[name] = helper.make_graph(nodes, name, [], [out], [weight])
    ends = [helper.make_tensor_value_info("b", TensorProto.BOOL, []), out]
    outer = helper.make_graph([helper.make_node("If", ["b"], ["p"], **branches)], "g", ends[:1], ends[1:])
    model = helper.make_model(outer, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "nested.onnx"
    onnx.save_model(model, path, save_as_external_data=True, size_threshold=0, convert_attribute=True)
    result = outputs_of(load(path), {"b": np.array(True)})
    np.testing.assert_array_equal(result["p"], 2 * np.arange(400, dtype=np.float32))


@pytest.mark.parametrize("location", ["../model.onnx.data", "/etc/hostname", "sub/../../model.onnx.data", ""])
def test_external_data_outside_the_folder_is_refused(tmp_path, external, location):
    (tmp_path.parent / "model.onnx.data").write_bytes(b"\0" * 64 * 64 * 4)
    edit(external, point_to(location))
    with pytest.raises(UsageError, match=r"model\.onnx: .*(outside the model's folder|is missing)"):
        load(external)


def test_link_that_leads_out_of_the_folder_is_refused(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
    save(parse_graph(TEXT), inside / "model.onnx", external=True)
    (inside / "model.onnx.data").rename(outside / "data")
    (inside / "model.onnx.data").symlink_to(outside / "data")
    with pytest.raises(UsageError, match="outside the model's folder"):
        load(inside / "model.onnx")


def test_missing_external_data_is_named(external):
    Path(f"{external}.data").unlink()
    with pytest.raises(UsageError, match=r"external data 'model\.onnx\.data' of tensor 'w' is missing; put it beside"):
        load(external)


@pytest.mark.parametrize("length", [0, 100, 64 * 64 * 4 - 1])
def test_truncated_external_data_is_named(external, length):
    data = Path(f"{external}.data")
    data.write_bytes(data.read_bytes()[:length])
    with pytest.raises(UsageError, match=r"external data 'model\.onnx\.data'.*tensor 'w'"):
        load(external)


def test_offsets_beyond_the_end_are_named(external):
    def change(model):
        for entry in model.graph.initializer[0].external_data:
            if entry.key == "offset":
                entry.value = "9999999"

    edit(external, change)
    with pytest.raises(UsageError, match=r"tensor 'w'"):
        load(external)


def test_missing_file(tmp_path):
    with pytest.raises(UsageError, match=r"nothing\.onnx: no such file"):
        load(tmp_path / "nothing.onnx")


def test_folder(tmp_path):
    with pytest.raises(UsageError, match="is a folder"):
        load(tmp_path)


NOISE = np.random.default_rng(0).bytes(1000)


@pytest.mark.parametrize("content", [b"", b"this is no model", b"\x89PNG\r\n", b"\x00" * 100, NOISE])
def test_file_that_is_no_model(tmp_path, content):
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(UsageError, match=r"bad\.onnx: not an ONNX model"):
        load(tmp_path / "bad.onnx")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_file_that_is_cut_off(tmp_path, graph, share):
    whole = graph.to_proto().SerializeToString()
    (tmp_path / "cut.onnx").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UsageError, match=r"cut\.onnx: "):
        load(tmp_path / "cut.onnx")


def test_every_prefix_of_a_file_is_refused_or_a_model(tmp_path):
    """Whatever is cut off, the answer is one sentence or a model that holds together."""
    whole = parse_graph("(float[2] x) => (float[2] y) { a = Relu (x)  y = Neg (a) }").to_proto().SerializeToString()
    path = tmp_path / "cut.onnx"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            graph = load(path)
        except UsageError:
            continue
        onnx.checker.check_model(graph.to_proto())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: setattr(m.opset_import[0], "version", 99), r"opset 99 is not supported \(1 to \d+ with onnx"),
        (lambda m: m.graph.ClearField("input"), "the model has no inputs"),
        (lambda m: m.graph.ClearField("output"), "the model has no outputs"),
        (lambda m: m.graph.ClearField("initializer"), "MatMul '.*' reads 'w', which nothing produces"),
        (lambda m: m.graph.node.pop(), "output 'y' is produced by nothing"),
        (lambda m: m.ClearField("opset_import"), "does not say which operator set it uses"),
        (lambda m: m.ClearField("graph"), "not an ONNX model"),
    ],
)
def test_models_that_cannot_be_used_are_refused(tmp_path, graph, change, reason):
    path = tmp_path / "model.onnx"
    save(graph, path)
    edit(path, change)
    with pytest.raises(UsageError, match=reason):
        load(path)


def test_metadata_is_read_without_the_weights(external):
    Path(f"{external}.data").unlink()
    assert io.read_metadata(external) == {"names": "{0: 'cat'}"}


class DiskFullError(OSError):
    """What writing to a full disk raises."""

    def __init__(self) -> None:
        super().__init__(28, "No space left on device")


@pytest.mark.parametrize("external_data", [False, True])
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failed_write_leaves_nothing_behind(tmp_path, graph, monkeypatch, step, external_data):
    def fail(*args):
        raise DiskFullError

    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), fail)
    with pytest.raises(UsageError, match=r"cannot be written \(No space left on device\); give another place"):
        save(graph, tmp_path / "model.onnx", external=external_data)
    assert names(tmp_path) == []


@pytest.mark.parametrize("external_data", [False, True])
def test_failed_write_leaves_the_file_that_was_there(tmp_path, graph, monkeypatch, external_data):
    path = tmp_path / "model.onnx"
    save(parse_graph("(float[2] x) => (float[2] y) { y = Relu (x) }"), path)
    before = path.read_bytes()

    def fail(descriptor):
        raise DiskFullError

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UsageError):
        save(graph, path, external=external_data)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["model.onnx"]


def test_data_without_its_model_does_not_stay(tmp_path, graph, monkeypatch):
    """The weights are written, then the model fails."""
    original, calls = Path.replace, []

    def fail_second(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise DiskFullError
        return original(self, target)

    monkeypatch.setattr(Path, "replace", fail_second)
    with pytest.raises(UsageError):
        save(graph, tmp_path / "model.onnx", external=True)
    assert len(calls) == 2
    assert names(tmp_path) == []


def test_missing_folder_is_named(tmp_path, graph):
    with pytest.raises(UsageError, match=r"cannot be written \(No such file or directory\)"):
        save(graph, tmp_path / "none" / "model.onnx")


def test_interrupted_write_leaves_nothing_behind(tmp_path, graph, monkeypatch):
    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(graph, tmp_path / "model.onnx")
    assert names(tmp_path) == []


def test_file_has_the_rights_of_an_ordinary_file(tmp_path, graph):
    mask = os.umask(0o022)
    try:
        save(graph, tmp_path / "model.onnx")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "model.onnx").stat().st_mode) == 0o644


def test_text_files_are_written_whole(tmp_path):
    io.write_text(tmp_path / "report.json", "{}")
    assert (tmp_path / "report.json").read_text() == "{}"
    with pytest.raises(UsageError, match="cannot be written"):
        io.write_text(tmp_path / "none" / "report.json", "{}")


@pytest.mark.parametrize("name", ["there.json", "new.json"])
def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path, name):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "there.json").write_text("before")
    (tmp_path / "link.json").symlink_to(Path("real") / name)
    io.write_text(tmp_path / "link.json", "{}")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real" / name).read_text() == "{}"
    assert {*names(tmp_path), *names(tmp_path / "real")} == {"link.json", "real", "there.json", name}


def test_weights_lie_beside_what_a_link_leads_to(tmp_path, graph):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.onnx").symlink_to(tmp_path / "real" / "m.onnx")
    written = save(graph, tmp_path / "link.onnx", external=True)
    assert written == [tmp_path / "real" / "m.onnx", tmp_path / "real" / "m.onnx.data"]
    assert (tmp_path / "link.onnx").is_symlink()
    assert load(tmp_path / "link.onnx").digest() == graph.digest()


@pytest.mark.slow
def test_model_above_two_gigabytes(tmp_path):
    """Weights of zeros in a sparse file: 2 GiB to look at, nothing on the disk until it is saved."""
    rows, columns, layers = 8192, 8192, 8
    size = rows * columns * 4
    with (tmp_path / "weights").open("wb") as data:
        data.truncate(layers * size)
    nodes, weights, last = [], [], "x"
    for index in range(layers):
        weight = TensorProto(name=f"w{index}", data_type=TensorProto.FLOAT, dims=[rows, columns])
        weight.data_location = TensorProto.EXTERNAL
        for key, value in {"location": "weights", "offset": index * size, "length": size}.items():
            weight.external_data.add(key=key, value=str(value))
        weights.append(weight)
        nodes.append(helper.make_node("MatMul", [last, weight.name], [last := f"a{index}"]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, rows]) for name in ("x", last)]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], weights), opset_imports=[helper.make_opsetid("", 17)]
    )
    (tmp_path / "large.onnx").write_bytes(model.SerializeToString())

    graph = load(tmp_path / "large.onnx")
    assert graph.nbytes() == layers * size > io.PROTOBUF_LIMIT
    assert isinstance(graph.copy(), Graph)
    assert len(graph.to_proto(weights=False).SerializeToString()) < 10_000
    out = tmp_path / "out"
    out.mkdir()
    assert [p.name for p in save(graph, out / "large.onnx")] == ["large.onnx", "large.onnx.data"]
    assert (out / "large.onnx.data").stat().st_size == layers * size
    del graph
    onnx.checker.check_model(str(out / "large.onnx"))
    saved = onnx.load_model(out / "large.onnx", load_external_data=False)
    assert [len(t.raw_data) for t in saved.graph.initializer] == [0] * layers

"""`onnxopt batch`: many models, one recipe."""

import json
from xml.etree import ElementTree as ET

import pytest

RECIPE = 'version = 1\n[[pipeline]]\npass = "simplify"\n'
TWICE = "(float[1,3] x) => (float[1,3] y) { a = Relu (x)  b = Identity (a)  y = Sigmoid (b) }"


@pytest.fixture
def folder(tmp_path, net, store):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    store("twice.onnx", TWICE)
    return tmp_path


@pytest.fixture
def batch(onnxopt, folder):
    def run(*words: object, models: str = "*.onnx"):
        return onnxopt("batch", folder / models, "--recipe", folder / "recipe.toml", "-o", folder / "out", *words)

    return run


def test_all_are_done_and_shown(batch, folder):
    result = batch()
    assert result.exit_code == 0, result.stderr
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["batch.json", "net.opt.onnx", "twice.opt.onnx"]
    header, _, net, twice = result.stdout.splitlines()
    assert header.split()[:2] == ["model", "size"]
    assert net.startswith(f"{folder}/net.onnx ")
    assert " done " in twice


@pytest.mark.parametrize("option", ["--junit", "--markdown"])
@pytest.mark.parametrize("name", ["net.onnx", "recipe.toml", ""])
def test_no_report_replaces_what_is_none(batch, folder, option, name):
    before = (folder / name).read_bytes() if name else b""
    result = batch(option, folder / name)
    assert result.exit_code == 2
    assert option in result.stderr
    assert not name or (folder / name).read_bytes() == before
    assert not (folder / "out").exists()


def test_what_was_done_before_is_shown_as_it_was(batch, folder):
    first, again = batch().stdout, batch().stdout
    assert [line.split() for line in again.replace("done before", "done").splitlines() if "---" not in line] == [
        line.split() for line in first.splitlines() if "---" not in line
    ]


def test_nothing_is_done_twice(batch, folder):
    batch()
    before = (folder / "out" / "net.opt.onnx").stat().st_mtime_ns
    again = batch()
    assert again.stdout.count("done before") == 2
    assert (folder / "out" / "net.opt.onnx").stat().st_mtime_ns == before
    (folder / "out" / "net.opt.onnx").unlink()
    assert batch().stdout.count("done before") == 1
    assert (folder / "out" / "net.opt.onnx").exists()


def test_what_decides_the_result_is_noticed(batch, folder, store):
    batch()
    store("twice.onnx", TWICE.replace("Sigmoid", "Tanh"))
    assert batch().stdout.count("done before") == 1


def test_a_failing_model_does_not_stop_the_others(batch, folder):
    (folder / "broken.onnx").write_bytes(b"no model")
    result = batch("--junit", folder / "j.xml", "--markdown", folder / "m.md")
    assert result.exit_code == 1
    assert "broken.onnx: not an ONNX model" in result.stderr
    assert "1 of 3 models failed" in result.stderr
    assert (folder / "out" / "twice.opt.onnx").exists()
    assert ET.parse(folder / "j.xml").getroot().attrib == {"tests": "3", "failures": "0", "errors": "1"}
    assert "not an ONNX model" in (folder / "m.md").read_text()
    assert set(json.loads((folder / "out" / "batch.json").read_text())) == {"net.opt.onnx", "twice.opt.onnx"}


def test_the_lock_is_kept(batch, folder):
    batch()
    lock = folder / "recipe.lock"
    text = lock.read_text()
    assert '"net.onnx" = "' in text
    batch(models="net.onnx")
    assert lock.read_text() == text  # what is known of the other model stays
    lock.write_text(text.replace('"numpy" = "', '"numpy" = "0.'))
    refused = batch()
    assert refused.exit_code == 2
    assert "recipe.lock no longer fits: numpy was 0." in refused.stderr
    assert batch("--update-lock").exit_code == 0
    assert lock.read_text() == text


def test_a_changed_recipe_does_not_fit_the_lock(batch, folder):
    batch()
    (folder / "recipe.toml").write_text(RECIPE + '[[pipeline]]\npass = "eliminate-dead"\n')
    assert "the recipe was another one" in batch().stderr


@pytest.mark.parametrize(
    ("words", "models", "problem"),
    [
        ([], "none*.onnx", "no such model"),
        (["--ending", ".xml"], "*.onnx", "loads no .xml file"),
        (["--ending", "onnx"], "*.onnx", "a model ends in"),
    ],
)
def test_what_cannot_be_done_is_refused_before_work(batch, folder, words, models, problem):
    result = batch(*words, models=models)
    assert result.exit_code == 2
    assert problem in result.stderr
    assert not (folder / "out").exists()


def test_two_results_of_one_name(batch, folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "net.onnx").write_bytes((folder / "net.onnx").read_bytes())
    result = batch(models="**/net.onnx")
    assert result.exit_code == 2
    assert "would both become" in result.stderr


def test_a_file_of_somebody_else_stays(batch, folder):
    (folder / "out").mkdir()
    (folder / "out" / "net.opt.onnx").write_bytes((folder / "net.onnx").read_bytes())
    result = batch()
    assert result.exit_code == 2
    assert "onnxopt did not write it" in result.stderr


def test_a_missed_gate_is_a_failure_and_says_what_was_measured(batch, folder):
    recipe = 'version = 1\n[budget]\nrequire = "size<=1B"\n[[pipeline]]\npass = "simplify"\n'
    (folder / "recipe.toml").write_text(recipe)
    result = batch("--junit", folder / "j.xml", models="net.onnx")
    assert result.exit_code == 1
    root = ET.parse(folder / "j.xml").getroot()
    assert root.get("failures") == "1"
    assert "size: " in root.find(".//system-out").text
    assert not (folder / "out" / "net.opt.onnx").exists()


def test_it_is_measured_on_a_device(batch, device):
    assert batch("--device", device.url(), *device.arguments, models="net.onnx").exit_code == 0

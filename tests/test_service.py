"""The minimal service: it loads what onnxopt wrote and answers as the model does."""

import ast
import io
import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from onnxopt import optimize
from onnxopt.runtime.ort import OrtSession

ROOT = Path(__file__).parents[1]
SERVICE = ROOT / "docs" / "service"
ALONE = {"onnxruntime", "numpy"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    file = tmp_path_factory.mktemp("service") / "model.opt.onnx"
    optimize(ROOT / "testdata" / "patches_classifier.onnx", "quantize", keep_anyway=True, verify="off").save(file)
    return file


@pytest.fixture(scope="module")
def address(model):
    """Of a service in an interpreter of its own, without onnxopt."""
    shutil.copy(SERVICE / "serve.py", model.parent)
    command = [sys.executable, "serve.py", model.name, "0"]
    with subprocess.Popen(command, cwd=model.parent, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        line = process.stdout.readline().decode()
        yield f"http://127.0.0.1:{line.rsplit(maxsplit=1)[-1]}/"
        process.terminate()


def ask(address: str, content: bytes | None = None) -> dict[str, object]:
    with urllib.request.urlopen(urllib.request.Request(address, data=content), timeout=30) as answer:
        return json.load(answer)


def test_it_says_what_the_model_is(address):
    said = ask(address)
    assert said["inputs"] == {"input": ["tensor(float)", ["batch", 3, 64, 64]]}
    assert "insert-qdq" in said["metadata"]["onnxopt.recipe"]


def test_it_answers_as_the_model_does(address, model):
    values = np.random.default_rng(0).random((2, 3, 64, 64), np.float32)
    content = io.BytesIO()
    np.save(content, values)
    said = ask(address, content.getvalue())
    wanted = OrtSession(model).run({"input": values})
    assert list(said) == list(wanted)
    for name, output in wanted.items():
        np.testing.assert_allclose(np.asarray(said[name]), output, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("content", "status"), [(b"no array", 400), (b"", 413)])
def test_what_it_cannot_answer(address, content, status):
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(address, content)
    assert caught.value.code == status
    assert json.load(caught.value)["error"]
    caught.value.close()


def test_the_image_holds_what_the_service_needs():
    lines = (SERVICE / "Dockerfile").read_text().splitlines()
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse((SERVICE / "serve.py").read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imported - sys.stdlib_module_names == ALONE
    (install,) = (line for line in lines if line.startswith("RUN pip install"))
    assert set(install.split()) >= ALONE
    (copied,) = (line.split()[1:-1] for line in lines if line.startswith("COPY"))
    assert copied == ["serve.py", "model.opt.onnx"]
    (started,) = (json.loads(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD"))
    assert started[1:] == copied


def test_the_image_of_onnxopt_gets_what_it_is_built_from():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert all((ROOT / name).exists() for name in kept)
    assert {"pyproject.toml", "README.md", "LICENSE", "onnxopt", "passes"} == kept
    assert "[eval,openvino,report]" in (ROOT / "Dockerfile").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("folder", [ROOT, SERVICE])
def test_the_images_can_be_built(folder, model, tmp_path):
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True, check=False).returncode:
        pytest.skip("needs a Docker that runs")
    if folder == SERVICE:
        shutil.copytree(SERVICE, tmp_path / "service")
        shutil.copy(model, tmp_path / "service" / "model.opt.onnx")
        folder = tmp_path / "service"
    subprocess.run([docker, "build", "--quiet", folder], check=True)

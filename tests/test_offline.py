"""onnxopt needs no network: every connection is refused here, and it works."""

import subprocess
import sys
from pathlib import Path

import pytest

TESTDATA = Path(__file__).parents[1] / "testdata"
CLASSIFIER = TESTDATA / "patches_classifier.onnx"
PROGRAM = """
import socket, sys

def refuse(*_, **__):
    raise OSError("this test has no network")

for name in ("connect", "connect_ex", "sendto", "bind"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = socket.create_connection = refuse
from onnxopt.cli.main import main
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["run", CLASSIFIER, "--passes", "quantize", "--data", TESTDATA / "patches" / "train.csv",
         "--preprocess", "imagenet", "-o", "out.onnx"],
        ["eval", CLASSIFIER, "--data", TESTDATA / "patches" / "val.csv", "--preprocess", "imagenet"],
        ["bench", CLASSIFIER, "--rounds", "3"],
        ["inspect", CLASSIFIER],
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_it_works_offline(words, tmp_path):
    command = [sys.executable, "-c", PROGRAM, *map(str, words)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

"""`YOLO("model.opt.onnx")` of Ultralytics loads and predicts. It is AGPL, so it lives in an environment of its own:

python -m venv ultralytics && ultralytics/bin/pip install ultralytics onnxruntime onnx
python -m pytest tests/test_ultralytics.py --slow --ultralytics ultralytics/bin/python
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from onnxopt import optimize

TESTDATA = Path(__file__).parents[1] / "testdata"
PICTURES = sorted((TESTDATA / "shapes" / "images" / "val").glob("*.jpg"))[:4]
SURE = 0.5  # confidence; what is less sure may come and go
PROGRAM = """
import json, sys
from ultralytics import YOLO

results = YOLO(sys.argv[1], task="detect").predict(sys.argv[2:], verbose=False)
print(json.dumps({"names": list(results[0].names.values()), "boxes": [r.boxes.data.tolist() for r in results]}))
"""


@pytest.fixture
def predict(request, tmp_path):
    python = request.config.getoption("--ultralytics")
    if python is None:
        pytest.skip("needs --ultralytics PYTHON, an environment with Ultralytics")

    def run(model: Path) -> dict[str, list]:
        environment = {**os.environ, "YOLO_CONFIG_DIR": str(tmp_path), "YOLO_OFFLINE": "true", "PYTHONPATH": ""}
        done = subprocess.run(
            [python, "-c", PROGRAM, model, *PICTURES],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.mark.slow
def test_the_result_loads_and_predicts(predict, tmp_path):
    model = TESTDATA / "shapes_detector.onnx"
    optimize(model, "quantize", data=TESTDATA / "shapes" / "data.yaml", keep_anyway=True).save(tmp_path / "m.opt.onnx")
    wanted, got = predict(model), predict(tmp_path / "m.opt.onnx")
    assert got["names"] == wanted["names"]
    for before, after in zip(wanted["boxes"], got["boxes"], strict=True):
        sure = [row for row in before if row[4] > SURE]
        assert sure
        for row in sure:
            assert any(other[5] == row[5] and overlap(row, other) > 0.8 for other in after), (row, after)


def overlap(a: list[float], b: list[float]) -> float:
    """Intersection over union of two boxes, x0 y0 x1 y1."""
    width, height = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    inner = max(width, 0) * max(height, 0)
    areas = sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    return inner / (areas - inner)

"""How good a model is on labelled samples, and how far it agrees with the float model it came from.

```python
from onnxopt import evaluate

found = evaluate("model.opt.onnx", "data.yaml", reference="model.onnx")
print(found.report.score, found.report.interval, found.report.compared)
```

1. The metric is the one asked for, or suits the labels and what the model does (`evaluation.choosing`).
2. With a reference, both models are scored on the same samples and their outputs compared.
3. Without labels, only the agreement with the reference can be told.
"""

from onnxopt.scoring.request import evaluate
from onnxopt.scoring.work import Evaluated

__all__ = ["Evaluated", "evaluate"]

"""A minimal service for a model: POST an array, get the outputs as JSON.

    python serve.py model.opt.onnx [port]

`POST /` takes the model's input in NumPy's file format (`numpy.save`), preprocessed as in training. `GET /` says what
the model is: inputs, outputs and metadata, in which onnxopt has written what it did. Needs onnxruntime and numpy.
"""

import io
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

LARGEST = 64 << 20  # bytes of a request


class Model:
    """A model in memory; its session may be used by several threads at once."""

    def __init__(self, file: Path) -> None:
        self._session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0]
        self._outputs = [output.name for output in self._session.get_outputs()]

    def describe(self) -> dict[str, Any]:
        """What it is."""
        inputs = {i.name: [i.type, i.shape] for i in self._session.get_inputs()}
        metadata = self._session.get_modelmeta().custom_metadata_map
        return {"inputs": inputs, "outputs": self._outputs, "metadata": metadata}

    def predict(self, content: bytes) -> dict[str, Any]:
        """Outputs by name for an array in NumPy's file format."""
        values = np.load(io.BytesIO(content), allow_pickle=False)
        results = self._session.run(self._outputs, {self._input.name: values})
        return {name: result.tolist() for name, result in zip(self._outputs, results, strict=True)}


class Handler(BaseHTTPRequestHandler):
    """Answers requests with the model of the server."""

    server: "Server"

    def do_GET(self) -> None:
        """What the model is."""
        self._answer(200, self.server.model.describe())

    def do_POST(self) -> None:
        """What the model says to an array."""
        length = int(self.headers.get("Content-Length", 0))
        if not 0 < length <= LARGEST:
            self._answer(413, {"error": f"send an array of at most {LARGEST} bytes"})
            return
        try:
            self._answer(200, self.server.model.predict(self.rfile.read(length)))
        except Exception as error:  # what ONNX Runtime raises shares no base class
            self._answer(400, {"error": str(error)})

    def _answer(self, status: int, values: dict[str, Any]) -> None:
        content = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Server(ThreadingHTTPServer):
    """A server that holds a model."""

    def __init__(self, place: tuple[str, int], model: Model) -> None:
        super().__init__(place, Handler)
        self.model = model


def main(file: str, port: str = "8000") -> None:
    """Serve until interrupted."""
    server = Server(("0.0.0.0", int(port)), Model(Path(file)))  # all addresses: it runs in a container
    print(f"serving {file} on port {server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What is going on, on one line of a terminal; nothing where the stream is no terminal."""

from typing import TextIO

from onnxopt.graph import Graph
from onnxopt.manager import Watcher
from onnxopt.pass_api import Context, Pass

_CLEAR = "\r\x1b[K"


class Progress(Watcher):
    """Shows the pass that is running and clears the line after it.

    Args:
        stream: Usually standard error.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._shows = stream is not None and stream.isatty()
        self._count = 0

    def before_pass(self, step: Pass, graph: Graph, context: Context) -> None:  # noqa: ARG002
        """Name the pass."""
        self._count += 1
        self._show(f"{self._count}. {step.name} … ({len(graph.nodes)} nodes)")

    def after_pass(self, step: Pass, before: Graph, after: Graph, context: Context) -> None:  # noqa: ARG002
        """Clear the line."""
        self._show("")

    def after_failure(self, step: Pass, before: Graph, context: Context, error: Exception) -> None:  # noqa: ARG002
        """Clear the line, so that the error stands alone."""
        self._show("")

    def _show(self, text: str) -> None:
        if self._shows and self._stream is not None:
            self._stream.write(_CLEAR + text)
            self._stream.flush()

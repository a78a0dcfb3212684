"""A walk over a model that looks ahead: what a layer reads, sample by sample, without holding it for all samples."""

from collections.abc import Iterator

from onnxopt.analysis.recovery.walk import Walk
from onnxopt.graph import Array
from onnxopt.runtime.ort import OrtSession


class LookingWalk(Walk):
    """A `Walk` that holds only what lies behind it."""

    def look(self, *names: str) -> Iterator[dict[str, Array]]:
        """Yield the values of tensors ahead (or live ones) for one sample after the other; nothing more is held."""
        ahead = [name for name in names if self._produced.get(name, -1) >= self._done]
        session = None
        if ahead:
            stop = max(self._produced[name] for name in ahead) + 1
            session = OrtSession(self._piece(stop, ahead), threads=self._threads, optimized=self._optimized)
        for live in self._live:
            found = session.run({n: live[n] for n in session.input_names}) if session is not None else {}
            yield {name: found[name] if name in found else live[name] for name in names}

"""A walk over a model that shows the values of tensors, sample by sample."""

from collections.abc import Iterator

from onnxopt.analysis.recovery.walk import Walk
from onnxopt.graph import Array
from onnxopt.runtime.ort import OrtSession


class LookingWalk(Walk):
    """A `Walk` that stops where tensors are made, or looks ahead at them."""

    def reach(self, *names: str) -> Iterator[dict[str, Array]]:
        """Go on until tensors are made, and yield their values for one sample after the other.

        Going on drops them. Tensors that the walk has gone by can be had as long as something ahead reads them.
        """
        held = set(names) - self._keep
        self._keep |= held
        self._advance(max(self._produced.get(name, -1) for name in names) + 1)
        self._keep -= held
        return ({name: live[name] for name in names} for live in self._live)

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

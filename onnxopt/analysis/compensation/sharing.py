"""What several runs over one model share: a model that is cut to several sizes is studied and measured once.

`Studies` is an artefact: whoever runs `prune` again and again on the same model and samples leaves it on each context.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onnxopt.analysis.compensation.sensitivity import Sensitivity
from onnxopt.analysis.compensation.study import Study
from onnxopt.model_io import write_text

Measured = dict[str, Sensitivity]


class Studies:
    """Studies and measurements by what they are of.

    Args:
        folder: Keeps measurements for a later process, one file each; None: they go with this object.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._studies: dict[str, Study] = {}
        self._measured: dict[str, Measured] = {}

    def study(self, about: Mapping[str, Any], make: Callable[[], Study]) -> Study:
        """The study of something, made if there is none.

        Args:
            about: Everything that tells it from others, JSON-able.
            make: Makes it.
        """
        key = _key(about)
        if key not in self._studies:
            self._studies[key] = make()
        return self._studies[key]

    def measured(self, about: Mapping[str, Any], measure: Callable[[], Measured]) -> Measured:
        """What was measured of something; see `study`.

        Raises:
            UsageError: The folder cannot be written.
        """
        key = _key(about)
        if key not in self._measured:
            self._measured[key] = self._read(key) or self._keep(key, measure())
        return self._measured[key]

    def _read(self, key: str) -> Measured | None:
        if self._folder is None:
            return None
        try:
            values = json.loads((self._folder / f"{key}.json").read_text(encoding="utf-8"))
            return {name: _sensitivity(value) for name, value in values.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):  # not there, or damaged
            return None

    def _keep(self, key: str, found: Measured) -> Measured:
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            values = {name: {"order": s.order.tolist(), "damage": list(s.damage.items())} for name, s in found.items()}
            write_text(self._folder / f"{key}.json", json.dumps(values))
        return found


def _key(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]


def _sensitivity(value: Mapping[str, Any]) -> Sensitivity:
    damage = {int(count): float(damage) for count, damage in value["damage"]}
    return Sensitivity(np.asarray(value["order"], np.int64), damage)

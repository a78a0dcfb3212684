"""What has been tried, kept by content, so that an interrupted search goes on where it was.

A candidate's key is a digest of everything that decides it: the model's bytes, the pipeline, target, data, metric and
budget, the versions of what computes, and the processor. Its folder holds `model.onnx` and, written last and whole,
`trial.json`: a folder without it was interrupted and counts for nothing, and neither does one whose model is not the
one that `trial.json` has the digest of.
"""

import hashlib
import inspect
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from onnxopt import model_io
from onnxopt.auto.trial import Failed, Outcome, Trial
from onnxopt.errors import UsageError
from onnxopt.graph import Graph

TRIAL, MODEL, NOTE = "trial.json", "model.onnx", "README"
VERSION = 3  # of what is written; raised when it changes
_NOTE = "What `onnxopt auto` has tried, by content. It may be deleted: then everything is tried anew.\n"


def key_of(facts: Mapping[str, Any]) -> str:
    """A name for everything that decides a result: 24 hexadecimal digits of a SHA-256."""
    text = json.dumps({"version": VERSION, **facts}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def code_digest(thing: Any) -> str:
    """SHA-256 of the file that a metric of the user's own stands in; empty where there is none."""
    try:
        file = inspect.getsourcefile(thing if inspect.isroutine(thing) or inspect.isclass(thing) else type(thing))
    except TypeError:
        return ""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file is not None and Path(file).is_file() else ""


class Store:
    """A folder of candidates by key.

    Args:
        folder: Is made where it is not there, as soon as there is something to keep.

    Raises:
        UsageError: It cannot be made or written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not there.is_dir():
            raise UsageError(f"{folder}: the cache cannot be made ({there} is a file); give another with --cache")
        if not os.access(there, os.W_OK):
            raise UsageError(f"{folder}: the cache cannot be written ({there} is read-only); give another with --cache")

    def get(self, key: str) -> Outcome | None:
        """What is known of a candidate; None where it was never finished, or cannot be read."""
        values = self._read(key)
        if values is None:
            return None
        try:
            if "reason" in values:
                return Failed.from_dict(values)
            trial = Trial.from_dict(values)
            return trial if _sha256(self.model(key)) == trial.digest else None
        except (KeyError, TypeError, OSError):
            return None

    def put(self, key: str, outcome: Outcome, graph: Graph | None) -> None:
        """Keep a candidate and its model.

        Raises:
            UsageError: The folder cannot be written, or the disk is full.
        """
        place = self._place(key)
        if graph is not None:
            model_io.save(graph, place / MODEL)
        self._write(key, asdict(outcome))

    def model(self, key: str) -> Path:
        """Where a candidate's model is."""
        return self.folder / key / MODEL

    def get_values(self, key: str) -> dict[str, Any] | None:
        """Other facts kept under a key."""
        return self._read(key)

    def put_values(self, key: str, values: Mapping[str, Any]) -> None:
        """Keep other facts, JSON-able ones, under a key."""
        self._place(key)
        self._write(key, values)

    def _place(self, key: str) -> Path:
        """The folder of a key, made where it is not there."""
        place = self.folder / key
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{place}: cannot be made ({error.strerror}); give another cache with --cache") from None
        if not (self.folder / NOTE).exists():
            model_io.write_text(self.folder / NOTE, _NOTE)
        return place

    def _read(self, key: str) -> dict[str, Any] | None:
        try:
            values = json.loads((self.folder / key / TRIAL).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return values if isinstance(values, dict) else None

    def _write(self, key: str, values: Mapping[str, Any]) -> None:
        model_io.write_text(self.folder / key / TRIAL, json.dumps(values, indent=1) + "\n")


def _sha256(file: Path) -> str:
    """Of a file; that of a model without external data is the digest of its graph.

    Raises:
        OSError: It is not there or cannot be read.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

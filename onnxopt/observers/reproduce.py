"""A folder that shows a failure again: the model before the pass, a recipe of that pass alone, versions.

onnxopt run reproducer/model.onnx --recipe reproducer/recipe.toml
"""

import platform
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path

from onnxopt.errors import OnnxoptError, UsageError
from onnxopt.graph import Graph
from onnxopt.manager import Watcher
from onnxopt.model_io import save
from onnxopt.pass_api import Context, Pass
from onnxopt.pipeline import Entry, Pipeline
from onnxopt.recipe import Recipe

PACKAGES = ("onnxopt", "onnx", "onnxruntime", "onnx-graphsurgeon", "numpy", "numba")


class Reproduce(Watcher):
    """On a failure writes a reproducer and adds a note to the error that names it.

    A request that cannot be met (a `UsageError`) is no failure.

    Args:
        folder: Where to; where it is taken, `<folder>-2`, `<folder>-3`, … is used.
    """

    def __init__(self, folder: str | Path = "reproducer") -> None:
        self._folder = Path(folder)

    def after_failure(self, step: Pass, before: Graph, context: Context, error: Exception) -> None:
        """Write the folder. That it cannot be written does not hide the failure itself."""
        if isinstance(error, UsageError):
            return
        try:
            folder = self._make_folder()
            save(before, folder / "model.onnx")
            (folder / "recipe.toml").write_text(_recipe(step, context), encoding="utf-8")
            (folder / "versions.txt").write_text(_versions(), encoding="utf-8")
            (folder / "error.txt").write_text(f"{type(error).__name__}: {error}\n", encoding="utf-8")
        except (OSError, OnnxoptError) as problem:
            error.add_note(f"no reproducer could be written: {problem}")
            return
        error.add_note(
            f"to see it again: onnxopt run {folder / 'model.onnx'} --recipe {folder / 'recipe.toml'}"
            " (the folder also holds the versions)"
        )

    def _make_folder(self) -> Path:
        names = (self._folder if i == 1 else self._folder.with_name(f"{self._folder.name}-{i}") for i in count(1))
        folder = next(name for name in names if not name.exists())
        folder.mkdir(parents=True)
        return folder


def _recipe(step: Pass, context: Context) -> str:
    alone = Pipeline((Entry(step.name, dict(context.record.options)),))
    return str(Recipe(alone, target=context.target.name, never_slower=False))


def _versions() -> str:
    lines = [f"python {platform.python_version()} on {platform.system()} {platform.machine()}"]
    for package in PACKAGES:
        try:
            lines.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            lines.append(f"{package} not installed")
    return "\n".join(lines) + "\n"

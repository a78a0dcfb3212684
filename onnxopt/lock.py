"""`recipe.lock`: what a recipe's results came from, so that others can tell whether theirs come from the same.

```toml
version = 1
recipe = "sha256 of the recipe"
target = "ort-vnni"

[packages]
onnxruntime = "1.23.0"

[data]
"model.onnx" = "sha256 of the samples that it was fitted and scored on, as it sees them"
```

What computes and what is fed decides a result beside the recipe itself; the model is the input. A lock grows by new
models; whatever it says already has to be so.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onnxopt import __version__
from onnxopt.errors import UsageError
from onnxopt.recipe import Recipe
from onnxopt.runtime import host

VERSION = 1
PACKAGES = ("onnx", "onnx-graphsurgeon", "onnxruntime", "numpy", "numba", "pillow")


@dataclass(frozen=True)
class Lock:
    """What results came from.

    Attributes:
        recipe: SHA-256 of its text.
        target: The table that was used.
        packages: Name to version.
        data: Model to the digest of its samples.
    """

    recipe: str
    target: str
    packages: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"version = {VERSION}\nrecipe = {json.dumps(self.recipe)}\ntarget = {json.dumps(self.target)}"]
        for section, values in (("packages", self.packages), ("data", self.data)):
            lines = [f"{json.dumps(name)} = {json.dumps(value)}" for name, value in sorted(values.items())]
            parts.append("\n".join([f"[{section}]", *lines]))
        return "\n\n".join(parts) + "\n"

    def differences(self, now: "Lock") -> list[str]:
        """What is otherwise now, one phrase each; what only one of the two knows of the data is none."""
        found = ["the recipe was another one"] if self.recipe != now.recipe else []
        if self.target != now.target:
            found.append(f"the target was {self.target} and is {now.target}")
        for name in sorted({*self.packages, *now.packages}):
            was, is_ = self.packages.get(name, "not there"), now.packages.get(name, "not there")
            if was != is_:
                found.append(f"{name} was {was} and is {is_}")
        changed = [name for name in sorted(self.data) if now.data.get(name, self.data[name]) != self.data[name]]
        return found + [f"the samples of {name} were others" for name in changed]

    def with_data_of(self, other: "Lock") -> "Lock":
        """The same, with what another one knows of the samples of further models."""
        return Lock(self.recipe, self.target, self.packages, {**other.data, **self.data})


def lock_now(recipe: Recipe, target: str, data: Mapping[str, str]) -> Lock:
    """What results of today come from.

    Args:
        recipe: What is run.
        target: The table that it is run for.
        data: Model to the digest of its samples.
    """
    packages = ("openvino", *PACKAGES) if target.startswith("openvino") else PACKAGES
    digest = hashlib.sha256(str(recipe).encode()).hexdigest()
    return Lock(digest, target, {"onnxopt": __version__, **host.versions(*packages)}, data)


def load_lock(file: Path) -> Lock | None:
    """Read a lock; None where there is none.

    Raises:
        UsageError: It cannot be read, or is no lock.
    """
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{file}: the lock cannot be read ({error}); delete it or give --update-lock") from None
    except RecursionError:
        raise UsageError(f"{file}: not a lock: it is nested too deep; delete it or give --update-lock") from None
    try:
        if document["version"] != VERSION:
            raise KeyError("version")
        return Lock(document["recipe"], document["target"], document["packages"], document["data"])
    except KeyError as error:
        raise UsageError(f"{file}: no lock of this version, {error} does not fit; give --update-lock") from None

"""`open_dataset`: from what the user gave as `--data` to a data set.

Kinds of sources are entry points of the group `onnxopt.data`: functions that take what stands behind the colon of
`NAME:PLACE`, as a path, and the role, and return the pictures and notes on what was guessed. The built-in ones are
also found by what a path looks like.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

from onnxopt import plugins
from onnxopt.data.arrays import open_npy_folder, open_npz
from onnxopt.data.coco import list_coco
from onnxopt.data.dataset import Dataset, Source
from onnxopt.data.feeds import open_function, open_iterable
from onnxopt.data.folder import Role, list_folder
from onnxopt.data.images import PictureInput
from onnxopt.data.infer import infer_preprocess
from onnxopt.data.pictures import Picture, PictureSource, is_picture
from onnxopt.data.preprocess import PRESETS, Preprocess, parse_preprocess
from onnxopt.data.sample import InputSpec
from onnxopt.data.symbols import is_symbol
from onnxopt.data.table import list_table
from onnxopt.data.ultralytics import list_ultralytics
from onnxopt.errors import MissingData, UsageError

DATA = "onnxopt.data"
Listing: TypeAlias = Callable[[Path, Role], tuple[list[Picture], list[str]]]
_NAMED = re.compile(r"(?P<name>[a-z][a-z0-9-]+):(?P<place>.+)")
FORMS = (
    "a folder of pictures, an Ultralytics data.yaml, a COCO .json, a .csv of file,label or file,text, "
    "a .npz, a folder of .npy, or module:function"
)


def open_dataset(
    source: str | Path | Dataset | Iterable[Any],
    inputs: Sequence[InputSpec],
    *,
    role: Role,
    preprocess: Preprocess | str | Mapping[str, Any] | None = None,
    samples: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Dataset:
    """Return the data set that a source holds for the model's inputs.

    Args:
        source: What the README lists under `--data`; from Python also any iterable of feeds, or of
            (feeds, label), where feeds map each input's name to an array with or without a batch axis.
        inputs: The model's inputs.
        role: `calibration` reads the split `train` of a source that has splits, `evaluation` its `val`.
        preprocess: How pictures become inputs: a value, its text or settings, or None to infer it from the metadata.
        samples: At most so many; spread evenly over files, the first ones of a function or an iterable.
        metadata: The model's `metadata_props`.

    Raises:
        MissingData: It is a path where nothing is.
        UsageError: The source cannot be used; the message names the file and says what to do.
    """
    if samples is not None and samples < 1:
        raise UsageError(f"{samples} samples were asked for; at least 1 is needed")
    if not inputs:
        raise UsageError("the model has no inputs, so it cannot be fed any data")
    if isinstance(source, Dataset):
        return source if samples is None else source.take(samples)
    asked = _asked(preprocess)
    if not isinstance(source, str | Path):
        feeds, notes = open_iterable(source, inputs, samples, "the iterable given as data")
        return _ready_made(feeds, f"an iterable (at most {feeds.limit} samples)", notes, asked)
    if not str(source).strip():  # as a path it would be the current folder
        raise UsageError(f"the data is an empty text; give {FORMS}")
    path = Path(source)
    named = None if path.exists() else _named(str(source))
    if named is None and not path.exists() and is_symbol(str(source)):
        feeds = open_function(str(source), inputs, samples)
        return _ready_made(feeds, f"{source} (at most {feeds.limit} samples)", [], asked)
    if named is not None:
        listing, place = named
        dataset = _open_pictures(listing, place, inputs, role, asked, metadata or {})
    else:
        dataset = _open_path(path, inputs, role, asked, metadata or {})
    chosen = dataset if samples is None else dataset.take(samples)
    with closing(iter(chosen)) as reader:
        next(reader)  # a set of which nothing can be read is refused before the work starts
    return chosen


def _asked(preprocess: Preprocess | str | Mapping[str, Any] | None) -> Preprocess | None:
    if isinstance(preprocess, Mapping):
        return Preprocess.from_dict(preprocess)
    return parse_preprocess(preprocess) if isinstance(preprocess, str) else preprocess


def _open_path(
    path: Path,
    inputs: Sequence[InputSpec],
    role: Role,
    preprocess: Preprocess | None,
    metadata: Mapping[str, str],
) -> Dataset:
    if not path.exists():
        raise MissingData(str(path), f"the data {path} does not exist; give {FORMS}")
    listing = _folder_listing(path) if path.is_dir() else LISTINGS.get(path.suffix.lower())
    if listing is None and is_picture(path.name):
        listing = _one_picture
    if listing is not None:
        return _open_pictures(listing, path, inputs, role, preprocess, metadata)
    if path.is_dir():
        arrays, notes = open_npy_folder(path, inputs)
    elif path.suffix.lower() == ".npz":
        arrays, notes = open_npz(path, inputs)
    else:
        raise UsageError(f"{path} is not a kind of data that is known; give {FORMS}")
    return _ready_made(arrays, f"arrays in {path}", notes, preprocess)


def _open_pictures(
    listing: Listing,
    path: Path,
    inputs: Sequence[InputSpec],
    role: Role,
    preprocess: Preprocess | None,
    metadata: Mapping[str, str],
) -> Dataset:
    picture_input, remarks = _picture_input(path, inputs, preprocess, metadata)
    pictures, notes = listing(path, role)
    if not pictures:
        raise UsageError(f"{path} holds no pictures")
    source = PictureSource(pictures, picture_input)
    return Dataset(source, f"{len(pictures)} pictures of {path}", (*remarks, *notes), picture_input.preprocess)


def _named(text: str) -> tuple[Listing, Path] | None:
    """Return the installed kind of source that `NAME:PLACE` asks for, and the place; None if there is none."""
    match = _NAMED.fullmatch(text)
    if match is None or match["name"] not in plugins.names(DATA):
        return None
    return plugins.load(DATA, match["name"], "kind of data"), Path(match["place"])


def _ready_made(source: Source, description: str, notes: list[str], preprocess: Preprocess | None) -> Dataset:
    if preprocess is not None:
        notes = [*notes, f"preprocess '{preprocess}' is not used: {description} are inputs already"]
    return Dataset(source, description, tuple(notes))


def _picture_input(
    path: Path, inputs: Sequence[InputSpec], preprocess: Preprocess | None, metadata: Mapping[str, str]
) -> tuple[PictureInput, list[str]]:
    """Return what makes inputs of pictures, and how that was inferred where it was not said."""
    if len(inputs) != 1:
        wanted = "; ".join(map(str, inputs))
        raise UsageError(f"pictures can feed one input, the model has {len(inputs)}: {wanted}; give a .npz")
    if preprocess is not None:
        return PictureInput(inputs[0], preprocess), []
    inferred = infer_preprocess(metadata, inputs)
    if inferred is None:
        raise UsageError(
            f"how the pictures of {path} become inputs is not known; say --preprocess with one of "
            f"{', '.join(PRESETS)} or spelled out"
        )
    found, reason = inferred
    return PictureInput(inputs[0], found), [f"preprocess '{found}': {reason}"]


def _folder_listing(folder: Path) -> Listing | None:
    """Return how a folder's pictures are listed, or None for a folder of arrays."""
    if (folder / "data.yaml").is_file():
        return lambda path, role: list_ultralytics(path / "data.yaml", role)
    if any(folder.glob("*.npy")) and not any(is_picture(entry.name) for entry in folder.iterdir()):
        return None
    return list_folder


def _one_picture(path: Path, role: Role) -> tuple[list[Picture], list[str]]:  # noqa: ARG001 - a Listing
    return [Picture(path)], []


LISTINGS: Mapping[str, Listing] = {
    ".yaml": list_ultralytics,
    ".yml": list_ultralytics,
    ".json": list_coco,
    ".csv": list_table,
}

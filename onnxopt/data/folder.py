"""A folder of pictures as a data set.

1. `train/` and `val/` inside it: calibration reads the one, evaluation the other.
2. Pictures only in subfolders, one level down: each subfolder is a class, numbered in sorted order.
3. Otherwise all pictures below it, unlabelled.
"""

from pathlib import Path
from typing import Literal, TypeAlias

from onnxopt.data.images import SUFFIXES
from onnxopt.data.pictures import Known, Picture, pictures_below
from onnxopt.errors import UsageError

Role: TypeAlias = Literal["calibration", "evaluation"]
# Names of splits and of usual containers: folders called so are no classes.
NOT_CLASSES = frozenset({"train", "val", "valid", "validation", "test", "calib", "images", "labels"})


def list_folder(folder: Path, role: Role) -> tuple[list[Picture], list[str]]:
    """Return the pictures of a folder for a role, and what was guessed about them.

    Raises:
        UsageError: There are no pictures.
    """
    split = {"calibration": "train", "evaluation": "val"}[role]
    if (folder / "train").is_dir() and (folder / "val").is_dir():
        pictures, remarks = list_folder(folder / split, role)
        return pictures, [f"{folder} has train/ and val/: {split}/ is read for {role}", *remarks]
    paths = pictures_below(folder)
    if not paths:
        raise UsageError(f"there are no pictures in {folder}; files ending in {' '.join(sorted(SUFFIXES))} are")
    classes = sorted({path.relative_to(folder).parts[0] for path in paths})
    tree = all(len(path.relative_to(folder).parts) == 2 for path in paths)
    if not tree or len(classes) < 2 or NOT_CLASSES.intersection(classes):
        return [Picture(path) for path in paths], []
    number = {name: index for index, name in enumerate(classes)}
    pictures = [Picture(path, Known(number[path.parent.name])) for path in paths]
    return pictures, [f"the {len(classes)} subfolders of {folder} are taken for classes 0 to {len(classes) - 1}"]

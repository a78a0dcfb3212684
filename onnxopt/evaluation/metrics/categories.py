"""Which of a model's classes is which category of the labels."""

from collections.abc import Mapping

from onnxopt.data import Categories
from onnxopt.errors import UsageError

# The identifiers that COCO gives its 80 classes; ten between 1 and 90 were never used.
COCO_IDS = tuple(sorted(set(range(1, 91)) - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}))


def category_ids(categories: Categories, class_count: int | None, names: Mapping[int, str] | None) -> dict[int, int]:
    """Return the label identifier of each model class.

    1. By name, where the model's metadata names all of the set's categories.
    2. In order, where model and set have equally many; or where the output does not tell how many there are.
    3. By COCO's own numbering, for 80 classes against a set that has some of COCO's categories.

    Raises:
        UsageError: None of these applies.
    """
    ids = dict(zip(categories.names, categories.ids, strict=True))
    if names and set(ids) <= set(names.values()) and len(ids) == len(categories.ids):
        return {number: ids[name] for number, name in names.items() if name in ids}
    count = class_count or (len(names) if names else len(categories.ids))
    if count == len(categories.ids):
        return dict(enumerate(categories.ids))
    if count == len(COCO_IDS) and set(categories.ids) <= set(COCO_IDS):
        return dict(enumerate(COCO_IDS))
    raise UsageError(
        f"the model has {count} classes and the labels have {len(categories.ids)} categories, and their names "
        "do not say which is which"
    )

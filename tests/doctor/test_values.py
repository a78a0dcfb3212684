"""Ranges of pixels."""

import numpy as np
import pytest

from onnxopt.data import PRESETS, Preprocess, parse_preprocess
from onnxopt.doctor.settings import SETTINGS
from onnxopt.doctor.values import MISTAKES, RANGES, affine, is_far, range_name, range_of, same_values


@pytest.mark.parametrize("row", [*RANGES.values(), *MISTAKES.values()], ids=[*RANGES, *MISTAKES])
def test_arrays_that_fill_a_range_are_told(row):
    factor, shift = affine(row)
    low, high = shift.min() + 0.05 * (255 * factor).min(), 0.95 * (255 * factor + shift).max()
    found = range_of(min(low, high), max(low, high))
    assert found is not None
    assert same_values(found, row)


def test_arrays_that_fill_none_are_not_guessed():
    assert range_of(0.0, 0.3) is None
    assert range_of(-40.0, 40.0) is None
    assert range_of(0.0, 0.0) is None


def test_another_spelling_is_the_same():
    spelled = parse_preprocess("scale=1,mean=[123.675,116.28,103.53],std=[58.395,57.12,57.375]")
    assert same_values(spelled, PRESETS["imagenet"])
    assert range_name(spelled).startswith("values normalized by ImageNet")
    assert range_name(Preprocess(scale=0.5)) == "0..128"


def test_a_range_is_far_from_another_and_a_normalization_is_not():
    assert is_far(Preprocess(), Preprocess(scale=1.0))
    assert not is_far(Preprocess(), PRESETS["imagenet"])


@pytest.mark.parametrize(
    ("a", "b", "differing"),
    [
        ("yolo", "yolo,pad=0", ["pad"]),
        ("yolo", "yolo,align=topleft", ["align"]),
        ("yolo", "yolo,filter=bilinear,crop=0.5", []),
        ("resize=stretch,pad=0", "resize=stretch,pad=9", []),
        ("imagenet", "imagenet,crop=0.5", ["resize"]),
        ("yolo", "yolox", ["values", "color", "align"]),
    ],
)
def test_settings_differ_where_it_matters(a, b, differing):
    one, other = parse_preprocess(a), parse_preprocess(b)
    found = [setting for setting in SETTINGS if setting.differs(one, other)]
    assert [setting.name for setting in found] == differing
    for setting in found:
        one = setting.adopt(one, other)
    assert not any(setting.differs(one, other) for setting in SETTINGS)


def test_no_alternative_is_what_is_given():
    for preset in PRESETS.values():
        for setting in SETTINGS:
            assert all(setting.differs(preset, other) for other in setting.alternatives(preset))


def test_grey_inputs_have_one_factor():
    factor, _ = affine(PRESETS["imagenet"], 1)
    assert factor.shape == (1,)
    assert np.isclose(factor[0], 1 / 255 / np.mean(PRESETS["imagenet"].std))

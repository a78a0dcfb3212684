"""The text and dictionary forms of `Preprocess`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxopt.data import PRESETS, Preprocess, parse_preprocess
from onnxopt.errors import UsageError

values = st.floats(-1000, 1000)
positive = st.floats(1e-6, 1000)
anything = st.builds(
    Preprocess,
    resize=st.sampled_from(["crop", "letterbox", "stretch"]),
    crop=st.floats(0.01, 1.0),
    align=st.sampled_from(["center", "topleft"]),
    pad=st.integers(0, 255),
    color=st.sampled_from(["rgb", "bgr", "gray"]),
    scale=st.one_of(positive, st.integers(1, 70000).map(lambda n: 1 / n)),
    mean=st.lists(values, min_size=1, max_size=4).map(tuple),
    std=st.lists(positive, min_size=1, max_size=4).map(tuple),
    filter=st.sampled_from(["bilinear", "bicubic", "linear"]),
)


@given(anything)
def test_text_and_dictionary_give_the_value_back(preprocess):
    assert parse_preprocess(str(preprocess)) == preprocess
    assert Preprocess.from_dict(preprocess.to_dict()) == preprocess


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_written_by_name(name):
    assert str(parse_preprocess(name)) == name


def test_spelled_out():
    text = "resize=letterbox,pad=114,align=center,color=rgb,scale=1/255,mean=[0,0,0],std=[1,1,1],filter=linear"
    parsed = parse_preprocess(text)
    assert parsed == Preprocess(resize="letterbox", mean=(0, 0, 0), std=(1, 1, 1), filter="linear")
    assert str(parsed) == "resize=letterbox,mean=[0,0,0],std=[1,1,1],filter=linear"


def test_a_preset_can_be_changed():
    changed = parse_preprocess(" yolox , align=top-left, scale = 1/255 ")
    assert changed == Preprocess(resize="letterbox", align="topleft", color="bgr", filter="linear")
    assert Preprocess.from_dict({"preset": "yolo", "pad": 0}).pad == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("yollo", "no preset is called 'yollo'; did you mean 'yolo'"),
        ("rezise=crop", "no setting 'rezise'; did you mean 'resize'"),
        ("resize=letterbxo", "resize=letterbxo is not known; did you mean 'letterbox'"),
        ("yolo,114", "'114' in 'yolo,114' is not of the form name=value"),
        ("yolo,pad=1,pad=2", "'pad' is given twice"),
        ("mean=[0.5,0.5", "brackets"),
        ("mean=0.5]", "brackets"),
        ("mean=[]", r"mean=\[\] cannot be read; numbers in brackets"),
        ("scale=1/0", "scale=1/0 cannot be read; a number such as 1"),
        ("scale=-1", "scale=-1 is out of range"),
        ("std=[1,0,1]", r"std=\[1,0,1\] is out of range"),
        ("mean=nan", "mean=.* is out of range"),
        ("pad=1.5", "pad=1.5 cannot be read; a whole number"),
        ("pad=256", "pad=256 is out of range"),
        ("crop=0", "crop=0 is out of range"),
        ("", "no preset is called ''"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(UsageError, match=message):
        parse_preprocess(text)

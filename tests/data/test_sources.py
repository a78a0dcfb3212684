"""`open_dataset` on folders, tables, json and yaml files."""

import json

import numpy as np
import pytest

from onnxopt.data import Boxes, InputSpec, open_dataset
from onnxopt.data.sources import DATA
from onnxopt.errors import UsageError

ULTRALYTICS = {"stride": "32", "names": "{0: 'a'}", "imgsz": "[8, 8]", "task": "detect"}


def opened(source, inputs, role="evaluation", **settings):
    return open_dataset(source, inputs, **{"role": role, "preprocess": "yolo", **settings})


def labels(dataset):
    return [sample.label for sample in dataset]


def names(dataset):
    return [sample.image.path.name for sample in dataset]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


class TestFolder:
    def test_all_pictures_below_without_labels(self, tmp_path, draw, rgb_input):
        draw(tmp_path / "b.png")
        draw(tmp_path / "deep" / "a.JPG")
        draw(tmp_path / ".hidden.png")
        write(tmp_path / "notes.txt", "no picture")
        dataset = opened(tmp_path, rgb_input)
        assert names(dataset) == ["b.png", "a.JPG"]
        assert labels(dataset) == [None, None]

    def test_subfolders_are_classes_and_said_so(self, tmp_path, draw, rgb_input):
        for name in ("cat/1.png", "cat/2.png", "ant/1.png"):
            draw(tmp_path / name)
        dataset = opened(tmp_path, rgb_input)
        assert labels(dataset) == [0, 1, 1]
        assert "2 subfolders" in dataset.notes[0]

    def test_splits_follow_the_role_and_are_no_classes(self, tmp_path, draw, rgb_input):
        draw(tmp_path / "train" / "t.png")
        draw(tmp_path / "val" / "v.png")
        assert names(opened(tmp_path, rgb_input, "calibration")) == ["t.png"]
        assert names(opened(tmp_path, rgb_input)) == ["v.png"]
        draw(tmp_path / "other" / "calib" / "c.png")
        draw(tmp_path / "other" / "val" / "v.png")
        assert labels(opened(tmp_path / "other", rgb_input)) == [None, None]

    def test_links_in_circles_end(self, tmp_path, draw, rgb_input):
        draw(tmp_path / "a.png")
        (tmp_path / "again").symlink_to(tmp_path)
        assert names(opened(tmp_path, rgb_input)) == ["a.png"]

    def test_no_pictures(self, tmp_path, rgb_input):
        with pytest.raises(UsageError, match=r"there are no pictures in .*\.jpg"):
            opened(tmp_path, rgb_input)

    def test_one_picture(self, tmp_path, draw, rgb_input):
        assert names(opened(draw(tmp_path / "a.png"), rgb_input)) == ["a.png"]


class TestTable:
    @pytest.mark.parametrize("place", ["", "val", "images", "images/val"])
    def test_pictures_are_looked_for_beside_the_file(self, tmp_path, draw, rgb_input, place):
        draw(tmp_path / place / "a.png")
        table = write(tmp_path / "val.csv", "\ufefflabel,file\n7,a.png\n\n")
        assert labels(opened(table, rgb_input)) == [7]

    def test_missing_pictures_are_named(self, tmp_path, draw, rgb_input):
        draw(tmp_path / "a.png")
        dataset = opened(write(tmp_path / "v.csv", "file,label\na.png,1\nb.png,2\n"), rgb_input)
        assert labels(dataset) == [1]
        assert "b.png" in dataset.notes[0]

    def test_an_empty_column_of_labels_is_none(self, tmp_path, draw, rgb_input):
        draw(tmp_path / "a.png")
        assert labels(opened(write(tmp_path / "v.csv", "file,label\na.png,\na.png, \n"), rgb_input)) == [None, None]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a.png,1\n", "no header line with the columns file,label"),
            ("", "no header line"),
            ("file,label\n", "names no pictures"),
            ("file,label\na.png,1\na.png,cat\n", "line 3: the label 'cat' is not a class number"),
            ("file,label\na.png,1\na.png, \n", "line 3: no label, as other lines have"),
            ("file,label\na.png,-1\n", "line 2: the class number -1 is negative"),
            ("file,label\na.png\n", "line 2: 1 columns where the header has 2"),
            ("file,label\nb.png,1\n", "none of the 1 pictures .* was found; looked in .*images"),
        ],
    )
    def test_broken(self, tmp_path, draw, rgb_input, text, message):
        draw(tmp_path / "a.png")
        with pytest.raises(UsageError, match=message):
            opened(write(tmp_path / "v.csv", text), rgb_input)


def coco(**changes):
    content = {
        "images": [{"id": 5, "file_name": "a.png"}, {"id": 9, "file_name": "b.png"}],
        "categories": [{"id": 7, "name": "late"}, {"id": 3, "name": "early"}],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 7, "bbox": [1, 2, 3, 4], "area": 6.5, "iscrowd": 1},
            {"id": 2, "image_id": 9, "category_id": 3, "bbox": [0, 0, 2, 2]},
        ],
    }
    return json.dumps({**content, **changes})


class TestTexts:
    @pytest.mark.parametrize("column", ["label", "text"])
    def test_a_column_of_words_is_text(self, tmp_path, draw, rgb_input, column):
        for name in ("a", "b", "c"):
            draw(tmp_path / f"{name}.png")
        path = write(tmp_path / "t.csv", f'file,{column}\na.png,cat\nb.png,"1,5"\nc.png,7\n')
        assert labels(opened(path, rgb_input)) == ["cat", "1,5", "7"]

    def test_a_column_text_may_hold_numbers_alone(self, tmp_path, draw, rgb_input):
        draw(tmp_path / "a.png")
        assert labels(opened(write(tmp_path / "t.csv", "file,text\na.png,007\n"), rgb_input)) == ["007"]


class TestCoco:
    def test_boxes_are_in_the_order_of_the_categories(self, tmp_path, draw, rgb_input):
        for name in ("a", "b"):
            draw(tmp_path / "images" / "val" / f"{name}.png")
        empty, full = labels(opened(write(tmp_path / "val.json", coco()), rgb_input))
        assert (empty.image_id, len(empty)) == (5, 0)
        assert full.categories.ids == (3, 7)
        assert full.classes.tolist() == [1, 0]
        assert full.xyxy.tolist() == [[1, 2, 4, 6], [0, 0, 2, 2]]
        assert full.area.tolist() == [6.5, 4]
        assert full.crowd.tolist() == [True, False]

    def test_without_annotations_the_pictures_are_unlabelled(self, tmp_path, draw, rgb_input):
        draw(tmp_path / "a.png")
        content = {"images": [{"id": 1, "file_name": "a.png"}]}
        dataset = opened(write(tmp_path / "val.json", json.dumps(content)), rgb_input)
        assert labels(dataset) == [None]
        assert "no annotations" in dataset.notes[0]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "not a readable json"),
            ("[]", "not a COCO json"),
            ("[" * 100_000, "val.json is not a COCO json: it is nested too deep"),
            (coco(images=[{"id": 1}]), "not laid out as a COCO json: one of its entries has no 'file_name'"),
            (coco(images=[{"id": 1, "file_name": "a.png"}] * 2), "several images have the same id"),
            (coco(categories=[]), "annotation 1 cannot be read: its category_id 7 is none of the 0 categories"),
            (
                coco(annotations=[{"image_id": 5, "category_id": 3, "bbox": [1, 2]}]),
                "annotation 0 cannot be read: its bbox is",
            ),
            (
                coco(annotations=[{"image_id": 5, "category_id": 3, "bbox": [1, 2, -3, 4]}]),
                "annotation 0 cannot be read: its bbox is",
            ),
            (coco(images=[{"id": 1, "file_name": "gone.png"}]), "none of the 1 pictures"),
        ],
    )
    def test_broken(self, tmp_path, draw, rgb_input, text, message):
        draw(tmp_path / "a.png")
        with pytest.raises(UsageError, match=message):
            opened(write(tmp_path / "val.json", text), rgb_input)


class TestCocoShapes:
    def test_outlines_keypoints_and_strays(self, tmp_path, draw, rgb_input):
        draw(tmp_path / "a.png")
        outline = [[0, 0, 4, 0, 4, 4]]
        person = {"id": 1, "image_id": 5, "category_id": 3, "bbox": [0, 0, 4, 4], "segmentation": outline}
        stray = {"id": 2, "image_id": 77, "category_id": 3, "bbox": [0, 0, 1, 1]}
        content = coco(
            images=[{"id": 5, "file_name": "a.png"}], annotations=[person | {"keypoints": [1, 2, 2, 3, 4, 0]}, stray]
        )
        dataset = opened(write(tmp_path / "val.json", content), rgb_input)
        (boxes,) = labels(dataset)
        assert boxes.outlines == [outline]
        assert boxes.keypoints.tolist() == [[[1, 2, 2], [3, 4, 0]]]
        assert any("1 annotations are of images that it does not list" in note for note in dataset.notes)

    def test_where_one_lacks_them_there_are_none(self, tmp_path, draw, rgb_input):
        draw(tmp_path / "b.png")
        (boxes,) = labels(opened(write(tmp_path / "val.json", coco()), rgb_input))
        assert boxes.outlines is None
        assert boxes.keypoints is None


class TestInstalled:
    def test_a_kind_by_name(self, tmp_path, draw, rgb_input, distribute):
        module = """
from onnxopt.data.pictures import Known, Picture

def listed(place, role):
    return [Picture(place / "a.png", Known(role))], ["found by a plug-in"]
"""
        distribute("shelf", {DATA: {"shelf": "shelf_data:listed"}}, shelf_data=module)
        draw(tmp_path / "a.png")
        dataset = opened(f"shelf:{tmp_path}", rgb_input)
        assert labels(dataset) == ["evaluation"]
        assert "found by a plug-in" in dataset.notes

    def test_built_in_kinds_for_files_with_other_endings(self, tmp_path, draw, rgb_input):
        draw(tmp_path / "a.png")
        write(tmp_path / "list.tbl", "file,label\na.png,4\n")
        assert labels(opened(f"csv:{tmp_path / 'list.tbl'}", rgb_input)) == [4]


class TestUltralytics:
    @pytest.fixture
    def root(self, tmp_path, draw):
        for split in ("train", "val"):
            draw(tmp_path / "images" / split / f"{split}.png", width=20, height=10)
            write(tmp_path / "labels" / split / f"{split}.txt", "1 0.5 0.5 0.2 0.4\n\n0 0 0 0.5 0 0.5 1\n")
        return tmp_path

    def yaml(self, root, text="train: images/train\nval: images/val\nnames: [a, b]\n"):
        return write(root / "set.yaml", text)

    def test_calibration_reads_train_and_evaluation_val(self, root, rgb_input):
        assert names(opened(self.yaml(root), rgb_input, "calibration")) == ["train.png"]
        assert names(opened(self.yaml(root), rgb_input)) == ["val.png"]

    def test_boxes_and_outlines(self, root, rgb_input):
        (boxes,) = labels(opened(self.yaml(root), rgb_input))
        assert isinstance(boxes, Boxes)
        assert boxes.classes.tolist() == [1, 0]
        np.testing.assert_allclose(boxes.xyxy, [[8, 3, 12, 7], [0, 0, 10, 10]])
        np.testing.assert_allclose(boxes.area, [16, 100])
        assert boxes.categories.names == ("a", "b")

    @pytest.mark.parametrize("entry", ["[images/val]", "list.txt", "images/val/val.png", "../images/val"])
    def test_forms_of_a_split(self, root, rgb_input, entry):
        write(root / "list.txt", "./images/val/val.png\nimages/val/gone.png\n")
        dataset = opened(self.yaml(root, f"val: {entry}\nnames: {{0: a, 1: b}}"), rgb_input)
        assert names(dataset) == ["val.png"]
        assert len(labels(dataset)[0]) == 2
        assert any("gone.png" in note for note in dataset.notes) == (entry == "list.txt")

    def test_path_is_the_root(self, root, rgb_input):
        text = "path: {}\nval: images/val\nnames: [a, b]"
        sub = root / "sub"
        assert names(opened(write(sub / "s.yaml", text.format("..")), rgb_input)) == ["val.png"]
        dataset = opened(self.yaml(root, text.format("/not/here")), rgb_input)
        assert names(dataset) == ["val.png"]
        assert any("does not exist here" in note for note in dataset.notes)

    def test_a_folder_with_a_data_yaml_is_that_set(self, root, rgb_input):
        self.yaml(root).rename(root / "data.yaml")
        assert names(opened(root, rgb_input, "calibration")) == ["train.png"]

    def test_a_picture_without_labels_is_empty_but_a_set_without_is_unlabelled(self, root, draw, rgb_input):
        draw(root / "images" / "val" / "background.png")
        assert [len(boxes) for boxes in labels(opened(self.yaml(root), rgb_input))] == [0, 2]
        (root / "labels" / "val" / "val.txt").unlink()
        dataset = opened(self.yaml(root), rgb_input)
        assert labels(dataset) == [None, None]
        assert any("no labels were found" in note for note in dataset.notes)

    def test_pictures_and_labels_that_lack_each_other_are_said(self, root, draw, rgb_input):
        draw(root / "images" / "val" / "background.png")
        write(root / "labels" / "val" / "lost.txt", "0 0.5 0.5 0.2 0.4")
        write(root / "labels" / "val" / "classes.txt", "a\nb\n")
        notes = " ".join(opened(self.yaml(root), rgb_input).notes)
        assert "1 of 2 pictures have no label file" in notes
        assert "1 label files have no picture, " in notes
        assert "lost.txt being the first" in notes

    def test_the_shape_of_keypoints_is_checked(self, root, rgb_input):
        for shape, message in (("7", "as in \\[17, 3\\]"), ("[2, 4]", "should end in 2")):
            with pytest.raises(UsageError, match=message):
                opened(self.yaml(root, f"val: images/val\nnames: [a]\nkpt_shape: {shape}"), rgb_input)

    def test_equal_splits_are_said(self, root, rgb_input):
        text = "train: images/val\nval: images/val\nnames: [a, b]"
        assert any("same pictures" in note for note in opened(self.yaml(root, text), rgb_input).notes)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("train: images/train\nnames: [a, b]", "has no 'val', which is needed here; it has train"),
            ("- a", "not an Ultralytics data.yaml"),
            ("a: [", "not a readable yaml file"),
            ("a: " + "[" * 2000, "not an Ultralytics data.yaml: it is nested too deep"),
            ("val: images/val", "'names' should list the classes"),
            ("val: images/nowhere\nnames: [a]", "'val' names .*nowhere, which is neither"),
            ("val: labels\nnames: [a]", "'val' holds no pictures"),
        ],
    )
    def test_broken_yaml(self, root, rgb_input, text, message):
        with pytest.raises(UsageError, match=message):
            opened(self.yaml(root, text), rgb_input)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("0 0.5 0.5 x 0.4", "line 1: could not convert"),
            ("0 0.5 0.5 0.4", "line 1: 3 numbers after the class"),
            ("0 0.5 0.5 0.4 nan", "line 1: not a number"),
            ("0 5 5 2 4", "val.txt, line 1: 5 is no share of the picture's size"),
            ("\n2 0.5 0.5 0.2 0.4", "line 2: class 2 is not among the 2 names"),
        ],
    )
    def test_broken_labels(self, root, rgb_input, text, message):
        write(root / "labels" / "val" / "val.txt", text)
        with pytest.raises(UsageError, match=message):
            opened(self.yaml(root), rgb_input)


class TestOpening:
    def test_preprocess_is_inferred_and_said(self, tmp_path, draw, rgb_input):
        draw(tmp_path / "a.png")
        dataset = opened(tmp_path, rgb_input, preprocess=None, metadata=ULTRALYTICS)
        assert str(dataset.preprocess) == "yolo"
        assert dataset.notes == [
            "preprocess 'yolo': the model's metadata is that of an Ultralytics export (task 'detect')"
        ]

    def test_or_asked_for(self, tmp_path, draw, rgb_input):
        draw(tmp_path / "a.png")
        with pytest.raises(UsageError, match="say --preprocess with one of imagenet, ppocr, yolo, yolox"):
            opened(tmp_path, rgb_input, preprocess=None)

    def test_settings_as_a_recipe_has_them(self, tmp_path, draw, rgb_input):
        draw(tmp_path / "a.png")
        dataset = opened(tmp_path, rgb_input, preprocess={"preset": "yolo", "pad": 0})
        assert str(dataset.preprocess) == "resize=letterbox,pad=0,filter=linear"
        with pytest.raises(UsageError, match="resize=3 is not known"):
            opened(tmp_path, rgb_input, preprocess={"resize": 3})

    def test_what_does_not_exist_or_is_not_known(self, tmp_path, rgb_input):
        with pytest.raises(UsageError, match="does not exist; give a folder of pictures"):
            opened(tmp_path / "nowhere", rgb_input)
        with pytest.raises(UsageError, match="not a kind of data that is known"):
            opened(write(tmp_path / "a.doc", ""), rgb_input)

    def test_pictures_for_two_inputs(self, tmp_path, draw, rgb_input):
        draw(tmp_path / "a.png")
        second = InputSpec("sizes", (1, 2), np.dtype(np.int64))
        with pytest.raises(UsageError, match=r"the model has 2: .*sizes: int64\[1, 2\]"):
            opened(tmp_path, [*rgb_input, second])

    def test_a_dataset_passes_through(self, tmp_path, draw, rgb_input):
        draw(tmp_path / "a.png")
        draw(tmp_path / "b.png")
        dataset = opened(tmp_path, rgb_input)
        assert opened(dataset, rgb_input) is dataset
        assert names(opened(dataset, rgb_input, samples=1)) == ["a.png"]
        with pytest.raises(UsageError, match="at least 1"):
            opened(dataset, rgb_input, samples=0)


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_text_is_not_the_current_folder(text, tmp_path, draw, rgb_input, monkeypatch):
    draw(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    assert len(opened(".", rgb_input)) == 1
    with pytest.raises(UsageError, match="the data is an empty text; give a folder of pictures"):
        opened(text, rgb_input)

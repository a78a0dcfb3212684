"""Which of a model's classes is which category."""

import pytest

from onnxopt.data import Categories
from onnxopt.errors import UsageError
from onnxopt.evaluation.metrics.categories import COCO_IDS, category_ids

SET = Categories((3, 7), ("early", "late"))


class TestCategories:
    def test_in_order_where_there_are_equally_many(self):
        assert category_ids(SET, 2, None) == {0: 3, 1: 7}
        assert category_ids(SET, None, None) == {0: 3, 1: 7}
        assert category_ids(SET, 2, {0: "0", 1: "1"}) == {0: 3, 1: 7}

    def test_by_name_where_the_model_knows_all_names(self):
        assert category_ids(SET, 3, {0: "late", 1: "other", 2: "early"}) == {0: 7, 2: 3}

    def test_by_the_numbering_of_coco(self):
        assert len(COCO_IDS) == 80
        some = Categories((1, 90), ("person", "toothbrush"))
        mapped = category_ids(some, 80, None)
        assert (mapped[0], mapped[79]) == (1, 90)

    def test_otherwise_refused(self):
        with pytest.raises(UsageError, match="the model has 5 classes and the labels have 2 categories"):
            category_ids(SET, 5, None)

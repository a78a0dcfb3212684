"""Scores with weights equal scores of repeated pictures, and the bootstrap says how far they scatter."""

from pathlib import Path

import numpy as np
import pytest

from onnxopt.data import Boxes, Categories, ImageInfo
from onnxopt.evaluation.decoding import Reader
from onnxopt.evaluation.evidence import AveragePrecision, EnergyShare, Ratio
from onnxopt.evaluation.interval import FEWEST_RESAMPLES, RESAMPLES, drop_interval, score_interval
from onnxopt.evaluation.metrics.coco import MeanAveragePrecision

SET = Categories((1, 2, 5), ("a", "b", "c"))
IMAGE = ImageInfo(Path("x.png"), 120, 120, (1, 1), (0, 0))


def scene(random, number):
    """A picture with a crowd now and then, and detections of which some are right."""
    count = random.integers(0, 4)
    corners = random.uniform(0, 80, (count, 2))
    xyxy = np.hstack([corners, corners + random.uniform(10, 40, (count, 2))])
    classes, area = random.integers(0, 3, count), random.uniform(50, 20000, count)
    truth = Boxes(number, classes, xyxy, area, random.random(count) < 0.15, SET)
    found = []
    for box, name in zip(xyxy, classes, strict=True):
        for _ in range(random.integers(0, 3)):
            x1, y1, x2, y2 = box + random.normal(0, 1, 4)
            label = SET.ids[name] if random.random() < 0.8 else 5
            found.append([number, x1, y1, x2 - x1, y2 - y1, random.random(), label])
    found += [[number, *random.uniform(5, 60, 4), random.random(), 1] for _ in range(random.integers(0, 3))]
    return truth, np.array(found).reshape(-1, 7)


def scored(scenes, counts):
    """pycocotools' own answer for pictures that are really there so many times."""
    metric = MeanAveragePrecision(Reader())
    for (truth, found), count in zip(scenes, counts, strict=True):
        for _ in range(count):
            number = len(metric.pictures) + 1
            copy = Boxes(number, truth.classes, truth.xyxy, truth.area, truth.crowd, SET)
            metric.pictures.append((copy, IMAGE))
            metric.found += [
                {"image_id": number, "bbox": list(box), "score": sure, "category_id": int(label)}
                for _, *box, sure, label in found.tolist()
            ]
    return metric


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_with_weights_is_that_of_repeated_pictures(seed):
    pytest.importorskip("pycocotools")
    random = np.random.default_rng(seed)
    scenes = [scene(random, number) for number in range(12)]
    evidence = AveragePrecision(scored(scenes, [1] * 12).matched())
    draws = np.vstack([np.ones(12, np.int64), random.multinomial(12, np.full(12, 1 / 12), size=3)])
    wanted = [scored(scenes, counts).compute() for counts in draws]
    assert 0.05 < wanted[0] < 0.95
    np.testing.assert_allclose(evidence.values(draws), wanted, rtol=1e-12)
    assert evidence.pictures == 12


def test_ratio_and_energy():
    weights = np.array([[1, 1, 1], [0, 3, 0], [0, 0, 3]])
    ratio = Ratio(np.array([2.0, 4.0, 0.0]), np.array([4.0, 4.0, 0.0]))
    np.testing.assert_allclose(ratio.values(weights), [0.75, 1.0, 1.0])
    energy = EnergyShare(np.array([[1.0, 0.0], [0.0, 2.0], [9.0, 0.0]]), np.array([[4.0, 8.0], [4.0, 8.0], [4.0, 0.0]]))
    np.testing.assert_allclose(energy.values(weights), [1 - 10 / 12, 0.75, 0.0])


def test_the_interval_is_that_of_the_mean_of_paired_differences():
    random = np.random.default_rng(0)
    before = (random.random(400) < 0.8).astype(float)
    after = np.where(random.random(400) < 0.05, 1 - before, before)
    found = drop_interval(Ratio.mean(before), Ratio.mean(after))
    difference = before - after
    half = 1.96 * difference.std() / 20
    assert found.low == pytest.approx(difference.mean() - half, abs=0.004)
    assert found.high == pytest.approx(difference.mean() + half, abs=0.004)
    assert found.resamples == RESAMPLES
    assert found == drop_interval(Ratio.mean(before), Ratio.mean(after))


def test_of_equal_models_nothing_is_unsure_and_signs_turn_it_round():
    same = Ratio.mean([0.0, 1.0, 1.0])
    assert drop_interval(same, same).high == 0
    worse = Ratio.mean([0.0, 0.0, 0.0])
    assert drop_interval(same, worse).low == -drop_interval(same, worse, sign=-1).high


class Costly(Ratio):
    work = 10**9


def test_costly_scores_are_resampled_less_often_but_often_enough():
    costly = Costly(np.ones(3), np.ones(3))
    assert drop_interval(costly, costly).resamples == FEWEST_RESAMPLES


def test_models_scored_on_different_pictures_cannot_be_paired():
    with pytest.raises(ValueError, match="2 pictures before and 3 after"):
        drop_interval(Ratio.mean([1.0, 1.0]), Ratio.mean([1.0] * 3))


def test_the_interval_of_a_score_is_that_of_its_mean():
    values = np.random.default_rng(1).random(400)
    found = score_interval(Ratio.mean(values))
    spread = 1.96 * values.std() / np.sqrt(len(values))
    assert found.low == pytest.approx(values.mean() - spread, abs=0.003)
    assert found.high == pytest.approx(values.mean() + spread, abs=0.003)
    assert found.resamples == RESAMPLES

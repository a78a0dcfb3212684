"""From raw outputs to what they say: objects, classes or text, whatever family a model is of."""

from onnxopt.evaluation.decoding.classes import class_scores
from onnxopt.evaluation.decoding.decoder import (
    OBJECTS,
    SCORING,
    SHOWING,
    Decoder,
    Family,
    Head,
    Task,
    Thresholds,
    class_names,
)
from onnxopt.evaluation.decoding.find import DECODERS, Reader, families, parse_decoder
from onnxopt.evaluation.decoding.readings import Classes, Detections, Reading, Text, rotated_corners
from onnxopt.evaluation.decoding.suppression import overlap

__all__ = [
    "DECODERS",
    "OBJECTS",
    "SCORING",
    "SHOWING",
    "Classes",
    "Decoder",
    "Detections",
    "Family",
    "Head",
    "Reader",
    "Reading",
    "Task",
    "Text",
    "Thresholds",
    "class_names",
    "class_scores",
    "families",
    "overlap",
    "parse_decoder",
    "rotated_corners",
]

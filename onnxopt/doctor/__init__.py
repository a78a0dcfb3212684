"""Finds what silently ruins calibration: wrong ranges, colours, sizes, samples and labels."""

from onnxopt.doctor.checks import FAULTS
from onnxopt.doctor.examine import SHORT, THOROUGH, Depth, examine
from onnxopt.doctor.finding import Diagnosis, Finding
from onnxopt.doctor.short import warnings

__all__ = ["FAULTS", "SHORT", "THOROUGH", "Depth", "Diagnosis", "Finding", "examine", "warnings"]

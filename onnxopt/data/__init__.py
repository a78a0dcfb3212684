"""Data sets that stream a model's inputs: pictures, arrays, functions, or made up."""

from onnxopt.data.dataset import Dataset
from onnxopt.data.folder import Role
from onnxopt.data.infer import infer_preprocess
from onnxopt.data.preprocess import PRESETS, Preprocess, parse_preprocess
from onnxopt.data.sample import Array, Boxes, Categories, Feeds, ImageInfo, InputSpec, Sample
from onnxopt.data.sources import open_dataset
from onnxopt.data.symbols import is_symbol, load_symbol
from onnxopt.data.synthetic import synthetic

__all__ = [
    "PRESETS",
    "Array",
    "Boxes",
    "Categories",
    "Dataset",
    "Feeds",
    "ImageInfo",
    "InputSpec",
    "Preprocess",
    "Role",
    "Sample",
    "infer_preprocess",
    "is_symbol",
    "load_symbol",
    "open_dataset",
    "parse_preprocess",
    "synthetic",
]

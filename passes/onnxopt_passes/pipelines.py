"""The named pipelines that come with onnxopt."""

from onnxopt.registry import NamedPipeline

SIMPLIFY = NamedPipeline(
    name="simplify",
    summary="Clean the graph up: fold, remove, fuse and merge until nothing changes.",
    text="fold-constants,eliminate-identity,fuse-conv,merge-duplicates,eliminate-dead",
    options={"max_bytes": "fold-constants.max_bytes"},
    repeat=10,
)

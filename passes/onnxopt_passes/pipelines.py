"""The named pipelines that come with onnxopt."""

from onnxopt.registry import NamedPipeline

SIMPLIFY = NamedPipeline(
    name="simplify",
    summary="Clean the graph up: fold, remove, fuse and merge until nothing changes.",
    text="fold-constants,eliminate-identity,fuse-conv,merge-duplicates,eliminate-dead",
    options={"max_bytes": "fold-constants.max_bytes"},
    repeat=10,
)

QUANTIZE = NamedPipeline(
    name="quantize",
    summary="Calibrate and insert Q/DQ pairs so that the target runs the model in int8.",
    text="strip-qdq,upgrade-opset,simplify,sink-upsample,lower,equalize,equalize-activations,"
    "center-clips,calibrate,fit-ranges,keep-float{recover=fast},tune,"
    "insert-qdq,recover,merge-duplicates,eliminate-dead,convert-fp16{precision=fp32}",
    options={
        "high_precision": "upgrade-opset.precision, convert-fp16.precision",
        "keep_io": "convert-fp16.keep_io",
        "method": "calibrate.method",
        "most": "keep-float.most",
        "ranges": "fit-ranges.most",
        "percentile": "calibrate.percentile",
        "recover": "keep-float.recover, recover.level",
        "silu": "lower.silu",
        "sqnr": "keep-float.sqnr",
        "tune": "tune.on",
    },
)

"""The short form, at the start of a run: a few seconds, and never in its way."""

from collections.abc import Sequence

from onnxopt.data import Dataset, InputSpec
from onnxopt.doctor.examine import SHORT, examine
from onnxopt.doctor.finding import ACT_ON
from onnxopt.errors import OnnxoptError
from onnxopt.graph import Graph


def warnings(graph: Graph, inputs: Sequence[InputSpec], dataset: Dataset, macs: int) -> list[str]:
    """Return what should be acted on, as warnings of a report.

    Args:
        graph: The float model.
        inputs: Its inputs.
        dataset: What it is to be calibrated on.
        macs: Of one run.
    """
    try:
        diagnosis = examine(graph, inputs, dataset, macs=macs, depth=SHORT)
    except OnnxoptError as error:
        return [f"doctor: the data could not be examined: {error}"]
    return [f"doctor: {finding}" for finding in diagnosis.findings if finding.sure >= ACT_ON]

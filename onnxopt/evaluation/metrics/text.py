"""Recognizers of text: `cer`, the character error rate, by jiwer.

It is the number of characters to insert, delete or replace in all that was read, over that of all that is there. Both
are stripped of blanks at their ends. Lower is better; it may exceed 1.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxopt.data import Feeds, Sample
from onnxopt.errors import UsageError
from onnxopt.evaluation.decoding import Reader
from onnxopt.evaluation.evidence import Ratio
from onnxopt.evaluation.metrics.metric import PERCENT, Metric


def cer(reader: Reader) -> Metric:
    """Return the metric `cer`.

    Raises:
        UsageError: jiwer is not installed.
    """
    _jiwer()
    return Metric("cer", lambda: CharacterErrors(reader), lower_is_better=True, point=PERCENT)


@dataclass
class CharacterErrors:
    """Counts wrong characters, text by text."""

    reader: Reader
    wrong: list[int] = field(default_factory=list)
    there: list[int] = field(default_factory=list)
    equal: int = 0

    def update(self, outputs: Feeds, sample: Sample) -> None:
        """Add one text.

        Raises:
            UsageError: The sample has no text, or the model is no recognizer whose characters are known.
        """
        read = self.reader.text(outputs, sample.feeds)
        if read is None:
            shapes = {output: list(array.shape) for output, array in outputs.items()}
            raise UsageError(
                f"metric cer cannot read text from {shapes}; say which characters they stand for, with "
                "--decode 'ctc{alphabet=FILE}'"
            )
        if not isinstance(sample.label, str):
            raise UsageError("metric cer needs a text with each sample, as a csv of file,text gives")
        truth = sample.label.strip()
        if not truth:
            raise UsageError("metric cer: a sample is labelled with an empty text")
        counted = _jiwer().process_characters(truth, read.text.strip())
        self.wrong.append(counted.substitutions + counted.deletions + counted.insertions)
        self.there.append(counted.hits + counted.substitutions + counted.deletions)
        self.equal += truth == read.text.strip()

    def compute(self) -> float:
        """Return the error rate of all texts so far."""
        return sum(self.wrong) / sum(self.there)

    def evidence(self) -> Ratio:
        """Return the counts, text by text."""
        return Ratio(np.asarray(self.wrong, np.float64), np.asarray(self.there, np.float64))

    def details(self) -> dict[str, Any]:
        """Share of texts without any error."""
        return {"exact": self.equal / len(self.there)}


def _jiwer() -> Any:
    try:
        import jiwer  # noqa: PLC0415 - optional
    except ImportError:
        raise UsageError("metric cer needs jiwer; pip install 'onnxopt[eval]'") from None
    return jiwer

"""What can go wrong, as types. Every message is one sentence for the person at the keyboard.

* `UsageError`: the input or the request is wrong (exit code 2).
* `OptimizationError`: a pass or a check failed on valid input (exit code 1).
* `GateMissed`: the result is not as good as `--require` wants it (exit code 3).
"""

import difflib
from collections.abc import Iterable


class OnnxoptError(Exception):
    """Base of all errors that onnxopt raises on purpose."""

    exit_code = 1


class UsageError(OnnxoptError):
    """The model, the data or the request cannot be used as given; the message says what to do."""

    exit_code = 2


class MissingData(UsageError):  # noqa: N818 - says what is the matter
    """There is nothing where data were looked for.

    Attributes:
        place: The path.
    """

    def __init__(self, place: str, message: str) -> None:
        super().__init__(message)
        self.place = place


class OptimizationError(OnnxoptError):
    """A pass or a verification failed although the input was valid."""


class Unloadable(OptimizationError):  # noqa: N818 - says what the matter is
    """A runtime does not take a model."""


class GateMissed(OnnxoptError):  # noqa: N818 - says what happened
    """What came out does not keep what was required; the message says which gate, what was wanted and measured.

    Attributes:
        report: All that was measured, as the report of what was refused; None where there is none.
    """

    exit_code = 3
    report: object = None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean …?` for the known name closest to `name`, or the list of known names."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(names)}" if names else ""

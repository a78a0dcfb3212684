"""What the doctor says: findings, each with how sure it is and what to do about it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

MOST_SURE = 0.99  # of what is inferred; what was counted is certain
WORDS: Mapping[float, str] = {1.0: "certain", 0.95: "almost certain", 0.8: "likely", 0.5: "possible"}
ACT_ON = 0.8  # from here on something should be done


@dataclass(frozen=True)
class Finding:
    """One fault of the data, their preparation or their labels.

    Attributes:
        fault: Its kind, such as `value-range`; `onnxopt.doctor.FAULTS` lists all.
        says: What is wrong, one sentence.
        why: What was seen that says so.
        sure: How sure that is, 0..1; 1 only for what was counted.
        advice: What to do.
        preprocess: What to give as `--preprocess`, where that is the cure.
    """

    fault: str
    says: str
    why: str
    sure: float
    advice: str
    preprocess: str | None = None

    @property
    def word(self) -> str:
        """The plain word for how sure this is."""
        return next((word for least, word in WORDS.items() if self.sure >= least), "unsure")

    def __str__(self) -> str:
        return f"{self.says} ({self.word}, {self.sure:.2f}: {self.why}); {self.advice}"


@dataclass
class Diagnosis:
    """What an examination came to.

    Attributes:
        findings: The surest first; empty where nothing is wrong as far as can be seen.
        description: The data in one line.
        preprocess: How their pictures became inputs, as it was given or inferred; None for arrays, or if nobody said.
        examined: Samples that were looked at.
        run: Samples that the model was run on, in each preparation.
        notes: What could not be looked at, and why.
        pictures: Files that were drawn.
    """

    findings: list[Finding]
    description: str
    preprocess: str | None
    examined: int
    run: int
    notes: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether there is nothing that should be acted on."""
        return all(finding.sure < ACT_ON for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        document = asdict(self)
        for finding, entry in zip(self.findings, document["findings"], strict=True):
            entry["word"] = finding.word
        return {"sound": self.sound, **document}

    def __str__(self) -> str:
        said = f", preprocess '{self.preprocess}'" if self.preprocess else ""
        lines = [f"{self.description}{said}; {self.examined} looked at, {self.run} of them through the model", ""]
        for number, finding in enumerate(self.findings, 1):
            lines += [
                f"{number}. {finding.fault}: {finding.word} ({finding.sure:.2f})",
                f"   {finding.says}",
                f"   why: {finding.why}",
                f"   do:  {finding.advice}",
                "",
            ]
        if not self.findings:
            seen = "." if self.run else " by looking at the data alone."
            lines += [f"Nothing wrong was found{seen}", ""]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)]).rstrip()

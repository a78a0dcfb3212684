"""What is measured for an HTML report alone, since it takes a while: see `onnxopt.optimization.findings`."""

from dataclasses import dataclass

from onnxopt.report.document import Layer, Picture, Spectrum


@dataclass(frozen=True)
class Resources:
    """What one model takes; None where it was not measured.

    Attributes:
        compressed_bytes: Size of the model's file after zlib at its best.
        cold_start_ms: From opening the file to the first outputs, in a process that has imported the runtime.
        peak_bytes: Memory of that process until then, beyond what it held before.
        energy_mj: Energy of the processor for one run, in millijoules.
    """

    compressed_bytes: int | None = None
    cold_start_ms: float | None = None
    peak_bytes: int | None = None
    energy_mj: float | None = None


@dataclass(frozen=True)
class Findings:
    """Two models side by side.

    Attributes:
        before: Of the model as given.
        after: Of the optimized one.
        layers: Of the optimized one, in order of execution.
        layers_text: What the profile says, in one paragraph.
        spectra: The tensors that suffer most.
        pictures: Those on which the two differ most.
        notes: What could not be measured, and why.
    """

    before: Resources = Resources()
    after: Resources = Resources()
    layers: tuple[Layer, ...] = ()
    layers_text: str = ""
    spectra: tuple[Spectrum, ...] = ()
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()

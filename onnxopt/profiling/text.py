"""A profile for a terminal."""

from onnxopt.profiling.profile import LayerTime, Profile
from onnxopt.report.table import count_text, table

BOUNDS = {
    "compute": "compute",
    "memory": "memory",
    "conversions": "changes of type and layout",
    "overhead": "neither (small sizes, or poor kernels)",
}


def profile_text(profile: Profile, *, most: int | None = None) -> str:
    """Layers by their time, and what that says.

    Args:
        profile: What was measured.
        most: Show at most so many layers.
    """
    ordered = sorted(profile.layers, key=lambda layer: -layer.total_ms)
    shown = ordered[:most]
    header = ("layer", "op", "runs as", "ms", "conv. ms", "share", "MACs", "of the roof", "bound by")
    parts = [table(map(_row, shown), header, right=(3, 4, 5, 6, 7))]
    if len(shown) < len(ordered):
        rest = sum(layer.total_ms for layer in ordered[len(shown) :])
        parts.append(f"and {len(ordered) - len(shown)} more, {rest:.3f} ms together (all of them with --all)")
    return "\n".join([*parts, "", profile_summary(profile)])


def _row(layer: LayerTime) -> tuple[str, ...]:
    kernels = ", ".join(dict.fromkeys(layer.kernels)) or "conversions alone"
    reached = min(1.0, layer.roof_ms / layer.milliseconds) if layer.milliseconds else 0.0
    return (
        printable(layer.name),
        printable(layer.op),
        printable(f"{kernels} ({layer.precision})" if layer.precision else kernels),
        f"{layer.milliseconds:.3f}",
        f"{layer.conversions_ms:.3f}" if layer.conversions_ms else "",
        f"{layer.share:.1%}",
        count_text(layer.macs) if layer.macs else "",
        f"{reached:.0%}" if layer.roof_ms else "",
        layer.bound,
    )


def profile_summary(profile: Profile) -> str:
    """One paragraph: where the time goes, and what the machine could do."""
    if not profile.layers:
        return f"{profile.runtime} executes nothing: every output is constant."
    slowest = max(profile.layers, key=lambda layer: layer.total_ms)
    shares = [f"{share:.0%} by {BOUNDS[kind]}" for kind, share in profile.shares().items() if share >= 0.005]
    peaks = profile.peaks
    return (
        f"An undisturbed run takes {profile.latency_ms:.2f} ms on {profile.runtime} with one thread, spread over "
        f"{len(profile.layers)} layers. Their time is bound: {', '.join(shares)}. The slowest is "
        f"{printable(slowest.op)} '{printable(slowest.name)}' with {slowest.share:.0%}. The roofs, measured here: "
        f"{peaks.floating / 1e9:.0f} G MACs/s in float, {peaks.int8 / 1e9:.0f} in int8; {peaks.near / 1e9:.0f} GB/s "
        f"near the core, {peaks.far / 1e9:.0f} GB/s from memory. The profiler added {1000 * profile.toll_ms:.1f} µs to "
        "each kernel, which is taken off."
    )


def printable(text: str) -> str:
    """A text from a model without what would steer a terminal: characters that do not print become `?`."""
    return "".join(character if character.isprintable() else "?" for character in text)

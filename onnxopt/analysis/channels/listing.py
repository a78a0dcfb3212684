"""Groups of channels in words: what `onnxopt inspect --groups` prints."""

from collections.abc import Sequence
from typing import Any

from onnxopt.analysis.channels.groups import Group
from onnxopt.report.table import count_text, table

ROLES = {"out": "made by", "in": "summed by", "through": "scaled by", "constant": "constant of"}


def groups_facts(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """JSON-able form: name, channels, how many things can go one by one, block, MACs, why fixed, members."""
    return [
        {
            "name": g.name,
            "channels": g.channels,
            "size": g.size,
            "unit": g.unit,
            "macs": g.macs,
            "fixed": g.fixed,
            "members": [{"node": m.node, "role": m.role, "input": m.input, "axis": m.axis} for m in g.members],
        }
        for g in groups
    ]


def groups_text(groups: Sequence[Group]) -> str:
    """For a terminal: a line per group, and below it what is cut with it."""
    free = [g for g in groups if g.fixed is None]
    channels = sum(g.channels for g in free), sum(g.channels for g in groups)
    parts = [f"{len(free)} of {len(groups)} groups are free, with {channels[0]} of {channels[1]} channels"]
    return "\n\n".join([*parts, *map(_one, groups)])


def _one(group: Group) -> str:
    blocks = "" if group.size == group.channels else f" in {group.size} blocks"
    state = "free" if group.fixed is None else f"fixed: {group.fixed}"
    rows: dict[tuple[str, str], list[str]] = {}
    for member in group.members:
        rows.setdefault((ROLES[member.role], member.node), []).append(f"input {member.input} axis {member.axis}")
    members = table([("", role, node, ", ".join(places)) for (role, node), places in rows.items()])
    return f"{group.name}: {group.channels} channels{blocks}, {count_text(group.macs)} MACs, {state}\n{members}"

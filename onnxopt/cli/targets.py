"""`onnxopt targets`: the runtimes that a model can be made for, and what each wants."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from onnxopt.registry import Listed
    from onnxopt.targets import Target


@click.group()
def targets() -> None:
    """List targets, or show one."""


@targets.command("list")
def list_() -> None:
    """One line for each target."""
    from onnxopt.registry import TARGETS, listing
    from onnxopt.report.table import table

    rows = [_row(entry) for entry in listing(TARGETS, "target")]
    click.echo(table(rows, ("name", "runs here", "summary")))


def _row(entry: "Listed") -> tuple[str, str, str]:
    from onnxopt.registry import load_target
    from onnxopt.runtime.adapter import load_runtime
    from onnxopt.targets import Target, TargetFamily

    if isinstance(entry.value, TargetFamily):
        target = load_target(entry.name)
        summary = f"{entry.value.summary}, {target.name}"
    elif isinstance(entry.value, Target):
        target = entry.value
        summary = target.summary
    else:
        return entry.name, "broken", entry.problem or f"what {entry.owner} offers is no Target"
    runtime = load_runtime(target)
    return entry.name, runtime.version if runtime is not None else "no", summary


@targets.command()
@click.argument("name")
def show(name: str) -> None:
    """The table that decides what is quantized for a target, and how."""
    from onnxopt.registry import load_target

    click.echo(_text(load_target(name)))


def _text(target: "Target") -> str:
    from dataclasses import fields

    from onnxopt.report.table import table

    plain = [f.name for f in fields(target) if f.name not in {"name", "summary", "rules", "runtime"}]
    facts = [(name.replace("_", " "), _value(getattr(target, name))) for name in plain]
    parts = [f"{target.name}: {target.summary}", table(facts)]
    rows = [
        (op, rule.role or "float", rule.reason or ("Q behind it" if rule.output else "no Q behind it"))
        for op, rule in target.rules.items()
    ]
    parts.append(table(rows, ("operator", "role", "")))
    return "\n\n".join(parts)


def _value(value: object) -> str:
    from onnxopt.targets import NumberFormat

    if isinstance(value, NumberFormat):
        used = f", -{value.limit} to {value.limit}" if value.symmetric and value.limit < 127 else ""
        return f"{value.dtype}, {'symmetric' if value.symmetric else 'with zero point'}{used}"
    if isinstance(value, frozenset):
        return ", ".join(sorted(map(str, value))) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) or "none"

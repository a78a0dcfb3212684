"""`onnxopt bench A [B …]`: how long models take, interleaved."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxopt.cli.options import chosen_target, device_options, json_option, shape_option

if TYPE_CHECKING:
    from onnxopt.graph import Graph
    from onnxopt.runtime.adapter import Runtime
    from onnxopt.runtime.latency import Comparison

SESSION_ALONE = (".xml", ".ort")  # what only its runtime can read


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", type=click.Path(path_type=Path))
@click.option("--target", default="ort", show_default=True, metavar="NAME", help="Whose runtime to time on.")
@click.option("--rounds", default=30, show_default=True, type=click.IntRange(min=3), help="How often each one runs.")
@click.option("--seconds", type=click.FloatRange(min=0), help="Stop after so long, but not before 5 rounds.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1), help="Per model.")
@shape_option
@device_options
@json_option
def bench(
    *,
    models: tuple[Path, ...],
    target: str,
    rounds: int,
    seconds: float | None,
    threads: int,
    shapes: tuple[str, ...],
    device: str | None,
    ssh_options: tuple[str, ...],
    as_json: bool,
) -> None:
    """Time models against each other.

    They run in turn, once each per round, so that what the machine does meanwhile happens to all. Prints the median
    of a run, its spread (half the distance between the quartiles), and how many times faster than the first model
    each one is, round by round. With --device all of that happens on another machine, to which nothing but ssh
    access is needed and on which nothing is left. MODEL is an .onnx file, or what the target loads beside.
    """
    from onnxopt import formats
    from onnxopt.model_io import load
    from onnxopt.runtime import latency
    from onnxopt.runtime.adapter import needed_runtime, processor_of

    graphs = [None if file.suffix in SESSION_ALONE else load(file) for file in models]
    table = chosen_target(target, device, ssh_options)
    for file in models:
        if file.suffix in SESSION_ALONE:
            formats.check(file, table)
    runtime = needed_runtime(table)
    runs = {
        name: _run(runtime, file, graph, shapes, threads)
        for name, file, graph in zip(_names(models), models, graphs, strict=True)
    }
    timed = latency.compare(runs, rounds=rounds, seconds=seconds)
    if as_json:
        click.echo(json.dumps(_document(timed, runtime, device, threads), indent=2))
    else:
        click.echo(_text(timed))
        click.echo(
            f"{timed.rounds} interleaved rounds, {threads} threads, {runtime.version}, {processor_of(runtime)}",
            err=True,
        )


def _names(models: Sequence[Path]) -> list[str]:
    """File names, or whole paths where two files bear one name; a model given twice is numbered."""
    short = [file.name for file in models]
    names = short if len(set(short)) == len(set(models)) else [str(file) for file in models]
    return [f"{name} ({names[:i].count(name) + 1})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _run(
    runtime: "Runtime", file: Path, graph: "Graph | None", shapes: Sequence[str], threads: int
) -> "Callable[[], object]":
    """One model and its feeds, ready to be run again and again."""
    from onnxopt.cli.options import sized_inputs
    from onnxopt.data import synthetic
    from onnxopt.evaluation.inputs import fill_batch
    from onnxopt.formats import stand_in
    from onnxopt.runtime.adapter import naming_model, prepared

    with naming_model(file):
        session = runtime.open(file, threads=threads)
    inputs = sized_inputs(stand_in(file, getattr(session, "inputs", ())) if graph is None else graph, shapes)
    return prepared(session, fill_batch(next(iter(synthetic(inputs, 1))).feeds, inputs))


def _document(timed: "Comparison", runtime: "Runtime", device: str | None, threads: int) -> dict[str, Any]:
    from onnxopt.runtime.adapter import processor_of

    models = [
        {
            "model": latency.name,
            "median_ms": latency.milliseconds.median,
            "spread_ms": latency.milliseconds.spread,
            "speedup": latency.speedup.median,
            "speedup_spread": latency.speedup.spread,
        }
        for latency in timed.latencies
    ]
    return {
        "device": device,
        "runtime": runtime.version,
        "processor": processor_of(runtime),
        "threads": threads,
        "rounds": timed.rounds,
        "models": models,
    }


def _text(timed: "Comparison") -> str:
    from onnxopt.report.table import table

    rows = [
        (
            latency.name,
            f"{latency.milliseconds.median:.3f}",
            f"{latency.milliseconds.spread:.3f}",
            f"{latency.milliseconds.percent:.1f} %",
            f"{latency.speedup.median:.3f}",
            f"{latency.speedup.spread:.3f}",
        )
        for latency in timed.latencies
    ]
    header = ("model", "median ms", "spread ms", "", "x faster", "spread")
    return table(rows, header, right=range(1, len(header)))

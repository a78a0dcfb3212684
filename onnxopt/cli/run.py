"""`onnxopt run MODEL`: the main job."""

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxopt.cli.ci import check_cases, ci_options, reported
from onnxopt.cli.options import chosen_target, device_options
from onnxopt.cli.places import check_place
from onnxopt.cli.reports import check_reports, report_option, wants_page, write_reports

if TYPE_CHECKING:
    from onnxopt.api import Result
    from onnxopt.manager import Observer
    from onnxopt.targets import Target

EPILOG = """Exit codes: 0 done (a stage that did not pay is undone and said), 1 a pass or a check failed, 2 bad usage or
input, 3 a gate of --require was missed. The table goes to stderr."""


@click.command(epilog=EPILOG)
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("stray", nargs=-1, required=False, metavar="")
@click.option("--passes", metavar="TEXT", help="Pipeline, e.g. 'prune{ratio=0.3},quantize'. Quote it.")
@click.option(
    "--recipe",
    type=click.Path(path_type=Path),
    help="TOML recipe to run; other options come before what it says. Its paths start at the current folder.",
)
@click.option(
    "--high-precision",
    type=click.Choice(["fp32", "fp16"]),
    help="What `quantize` leaves beside int8; TensorRT 11 runs fp32 in FP32.",
)
@click.option("--target", metavar="NAME", help="What to tune for; default ort. See `onnxopt targets list`.")
@click.option(
    "--data", metavar="PATH", help="Calibration data: folder, data.yaml, COCO json, csv, npz or module:function."
)
@click.option(
    "--eval-data", metavar="PATH", help="Data to score on; default: the val split, or held-out calibration data."
)
@click.option(
    "--metric",
    metavar="NAME",
    help="top1, coco-map, module:function or agreement; default for a budget: what suits the labels, else agreement.",
)
@click.option(
    "--max-drop", metavar="1%|1.0", help="Lose at most this share of the float score, or so many points; exit 1 if not."
)
@click.option(
    "--require", metavar="GATES", help="Such as 'map>=-1pt,latency<=20ms,size<=3MB,speedup>=1.5'; exit 3 if not."
)
@click.option(
    "--calibration-table", type=click.Path(path_type=Path), metavar="FILE", help="Ranges: read if there, else written."
)
@click.option("--preprocess", metavar="SPEC", help="imagenet, yolo, yolox, or spelled out; default: from metadata.")
@click.option("--samples", type=click.IntRange(min=1), help="Use at most so many calibration samples; default 128.")
@click.option("--input-shape", "shapes", multiple=True, metavar="NAME:1x3x640x640", help="Size of a dynamic input.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Ends in .onnx, .xml (OpenVINO), .ort or .engine (TensorRT); default: MODEL with the ending .opt.onnx.",
)
@device_options
@ci_options
@click.option("--force", is_flag=True, help="Replace the output file even if onnxopt did not write it.")
@click.option("--keep-anyway", is_flag=True, help="Undo nothing; write whatever comes out and keeps the gates.")
@report_option
@click.option("--verify", type=click.Choice(["off", "structure", "outputs", "full"]), help="Default: outputs.")
@click.option(
    "--dump-after-each", type=click.Path(path_type=Path), metavar="DIR", help="Write the graph as text after each pass."
)
@click.option("--print-recipe", is_flag=True, help="Print the resolved recipe; write no model.")
def run(model: Path, stray: tuple[str, ...], **options: Any) -> None:
    """Run passes over MODEL and write a smaller, faster one.

    With no other option: target ort, output MODEL.opt.onnx, calibration on synthetic pictures with a warning.
    """
    from onnxopt import formats
    from onnxopt.api import optimize
    from onnxopt.evaluation.inputs import parse_input_shapes
    from onnxopt.model_io import load
    from onnxopt.report.summary import figures, summary

    _refuse_stray(stray, options["passes"])
    if options["passes"] is None and options["recipe"] is None:
        raise click.UsageError("give --passes or --recipe; see `onnxopt passes list`")
    output = _output(model, options["output"])
    if not options["print_recipe"]:
        _check_output(model, output, force=options["force"])
    reports = options["reports"]
    _check_weights(model, [output, *reports])
    check_reports(reports, (model, output), force=options["force"])
    check_cases(options["junit"], options["markdown"], (output, *reports))
    if options["calibration_table"] is not None:
        _check_table(options["calibration_table"], (model, output, *reports))
    passes = _passes(options["passes"], options["high_precision"])
    if passes is not None and options["recipe"] is not None:
        click.echo(f"--passes is run in place of the pipeline of {options['recipe']}", err=True)
    target = _target(options)
    formats.check(output, target)
    shapes = parse_input_shapes(options["shapes"], load(model)) if options["shapes"] else None
    with reported("onnxopt run", str(model), options["junit"], options["markdown"], figures) as measured:
        result = optimize(
            model,
            passes,
            recipe=options["recipe"],
            target=target,
            data=options["data"],
            eval_data=options["eval_data"],
            metric=options["metric"],
            max_drop=options["max_drop"],
            require=options["require"],
            calibration_table=options["calibration_table"],
            preprocess=options["preprocess"],
            samples=options["samples"],
            input_shapes=shapes,
            verify=options["verify"],
            keep_anyway=options["keep_anyway"],
            ending=formats.ending_of(output),
            findings=wants_page(reports),
            observers=_observers(options["dump_after_each"], output),
        )
        measured.update(figures(result.report))
    click.echo(summary(result.report), err=True)
    if options["print_recipe"]:
        click.echo(str(result.recipe), nl=False)
    else:
        _write(result, output)
    write_reports(reports, result.report.to_json, lambda: result.document)


def _target(options: dict[str, Any]) -> "Target":
    """What the command line says, else the recipe, else `ort`; on a device where one is given."""
    from onnxopt.recipe import load_recipe

    said = load_recipe(options["recipe"]).target if options["recipe"] is not None else None
    return chosen_target(options["target"] or said or "ort", options["device"], options["ssh_options"])


def _passes(text: str | None, high_precision: str | None) -> str | None:
    from onnxopt.pipeline import with_option

    if high_precision is None:
        return text
    if text is None:
        raise click.UsageError("--high-precision goes with --passes; in a recipe set the option of convert-fp16")
    return str(with_option(text, "quantize", "high_precision", high_precision))


def _refuse_stray(stray: tuple[str, ...], passes: str | None) -> None:
    if not stray:
        return
    hint = ""
    if passes is not None or any("=" in word or "," in word for word in stray):
        hint = (
            "; did the shell split the pipeline at its braces? Quote it: --passes 'prune{ratio=0.3, align=8},quantize'"
        )
    raise click.UsageError(f"unexpected argument '{stray[0]}'{hint}")


def _output(model: Path, asked: Path | None) -> Path:
    if asked is not None:
        return asked
    name = f"{model.stem}.opt.onnx"
    beside = model.parent / name
    return beside if os.access(model.parent, os.W_OK) else Path(name)


def _check_output(model: Path, output: Path, *, force: bool) -> None:
    """Refuse before any work what could not be written after it.

    Raises:
        UsageError: The output is the input, a folder, a file of somebody else's, or in a folder that is not writable.
    """
    from onnxopt.errors import UsageError
    from onnxopt.formats import files_of, is_ours

    if output.exists() and model.exists() and output.samefile(model):
        raise UsageError(f"{output} is the input model, which is never changed; give another place with -o")
    check_place(output, "-o")
    for file in files_of(output):
        if file.exists() and not force and not is_ours(file):
            raise UsageError(
                f"{file} is there already and onnxopt did not write it; give --force or another place with -o"
            )


def _check_weights(model: Path, places: list[Path]) -> None:
    """Refuse what would replace the input's external data, which are part of it.

    Raises:
        UsageError: Something would; or the model cannot be read.
    """
    from onnxopt.errors import UsageError
    from onnxopt.model_io import external_files

    taken = [place for place in places if place.exists()]
    for weights in external_files(model) if taken else ():
        for place in taken:
            if weights.exists() and place.samefile(weights):
                raise UsageError(
                    f"{place} holds weights of the input model, which is never changed; give another place"
                )


def _check_table(table: Path, others: tuple[Path, ...]) -> None:
    """The same for the calibration table, which is written only where there is none.

    Raises:
        UsageError: It is another file of this run; or it is to be written and cannot be.
    """
    from onnxopt.errors import UsageError

    if table.resolve() in {other.resolve() for other in others}:
        raise UsageError(f"{table} is the model or the report; give another place with --calibration-table")
    if not table.is_file():
        check_place(table, "--calibration-table")


def _observers(dump: Path | None, output: Path) -> "list[Observer]":
    from onnxopt.observers.dump import Dump
    from onnxopt.observers.progress import Progress
    from onnxopt.observers.reproduce import Reproduce

    observers: list[Observer] = [Progress(sys.stderr), Reproduce(output.with_name(f"{output.stem}.reproducer"))]
    if dump is not None:
        observers.append(Dump(dump))
    return observers


def _write(result: "Result", output: Path) -> None:
    from onnxopt.formats import trtexec_line

    files = result.save(output)
    result.report.model["output"] = [str(f) for f in files]
    click.echo(f"wrote {', '.join(str(f) for f in files)}", err=True)
    if result.recipe.target == "tensorrt" and output.suffix != ".engine":
        line = shlex.join(trtexec_line(output, result.graph, result.shapes))
        result.report.model["trtexec"] = line
        click.echo(f"build an engine where it is to run:\n  {line}", err=True)

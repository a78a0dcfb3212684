"""`onnxopt eval MODEL --data D`: how good a model is."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from onnxopt.cli.ci import check_cases, ci_options, reported
from onnxopt.cli.options import chosen_target, device_options, json_option, model_argument, shape_option
from onnxopt.cli.places import check_place
from onnxopt.cli.reports import check_reports, report_option, wants_page, write_reports

EPILOG = """Exit codes: 0 done, 1 the runtime or the metric failed, 2 bad usage or input, 3 a gate of --require was
missed."""


@click.command("eval", epilog=EPILOG)
@model_argument
@click.option(
    "--data",
    required=True,
    metavar="PATH",
    help="What to score on: folder, data.yaml (its val), COCO json, csv, npz, module:function or KIND:PLACE.",
)
@click.option("--target", default="ort", show_default=True, metavar="NAME", help="Whose runtime runs the model.")
@click.option("--metric", metavar="NAME", help="top1, coco-map …, or module:function; default: what suits the labels.")
@click.option(
    "--decode", metavar="NAME", help="How outputs are read, e.g. yolox or 'ctc{alphabet=FILE}'; default: found."
)
@click.option(
    "--reference", type=click.Path(path_type=Path), metavar="FLOAT.onnx", help="The float model to agree with."
)
@click.option("--require", metavar="GATES", help="Such as 'map>=-1pt,latency<=20ms'; exit 3 if not kept.")
@click.option("--preprocess", metavar="SPEC", help="imagenet, ppocr, yolo, yolox, or spelled out.")
@click.option("--samples", type=click.IntRange(min=1), help="Use at most so many; default: all.")
@click.option("--batch", type=click.IntRange(min=1), help="Run so many at once; default: the model's own batch.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1), help="Of the session.")
@click.option("--provider", metavar="NAME", help="Execution provider of ONNX Runtime, e.g. cuda; default: the CPU.")
@shape_option
@device_options
@click.option(
    "--save-predictions",
    "predictions",
    type=click.Path(path_type=Path),
    metavar="FILE.json|FILE.csv",
    help="Write what the model said: COCO results, or a table of classes or texts.",
)
@report_option
@ci_options
@click.option("--force", is_flag=True, help="Replace files even if onnxopt did not write them.")
@json_option
def eval(model: Path, **options: Any) -> None:  # noqa: A001 - the command's name
    """Say how good MODEL is on labelled pictures.

    Also how far it agrees with the float model it came from, if that is given. The metric suits what the model does
    and the labels: top-1, COCO's mean average precision of boxes, masks, keypoints or rotated boxes, or the character
    error rate. Without labels, give --reference.
    """
    from onnxopt.evaluation.inputs import parse_input_shapes
    from onnxopt.model_io import load
    from onnxopt.report.evaluation_summary import evaluation_document, evaluation_figures, evaluation_summary
    from onnxopt.scoring import evaluate

    models = (model, *filter(None, [options["reference"]]))
    check_reports(options["reports"], models, force=options["force"])
    if options["predictions"] is not None:
        _check_predictions(options["predictions"], (*models, *options["reports"]), force=options["force"])
    written = (*options["reports"], *filter(None, [options["predictions"]]))
    check_cases(options["junit"], options["markdown"], written)
    target = chosen_target(options["target"], options["device"], options["ssh_options"])
    names = ("metric", "decode", "reference", "require", "preprocess", "samples", "batch", "threads", "provider")
    ci = ("onnxopt eval", str(model), options["junit"], options["markdown"], evaluation_figures)
    with reported(*ci) as measured, _bar() as bar:
        found = evaluate(
            model,
            options["data"],
            target=target,
            input_shapes=parse_input_shapes(options["shapes"], load(model)) if options["shapes"] else None,
            predictions=options["predictions"] is not None,
            findings=wants_page(options["reports"]),
            progress=bar,
            **{name: options[name] for name in names},
        )
        measured.update(evaluation_figures(found.report))
    report = found.report
    click.echo(report.to_json() if options["as_json"] else evaluation_summary(report), nl=not options["as_json"])
    if found.predictions is not None:
        found.predictions.save(options["predictions"])
        click.echo(f"wrote {options['predictions']}", err=True)
    write_reports(options["reports"], report.to_json, lambda: evaluation_document(report, found.findings))


def _check_predictions(file: Path, others: tuple[Path, ...], *, force: bool) -> None:
    """Refuse before any work what could not be written after it.

    Raises:
        UsageError: It has another ending, is a file of this command, or is there already.
    """
    from onnxopt.errors import UsageError
    from onnxopt.evaluation.predictions import check_ending

    check_ending(file)
    check_place(file, "--save-predictions")
    if file.resolve() in {other.resolve() for other in others}:
        raise UsageError(f"{file} is a model or a report; give another place with --save-predictions")
    if file.exists() and not force:
        raise UsageError(f"{file} is there already; give --force or another place with --save-predictions")


@contextmanager
def _bar() -> "Iterator[Callable[[int, int], None] | None]":
    """A progress bar on stderr; None where that is no terminal."""
    stream = sys.stderr
    if not stream.isatty():
        yield None
        return
    with click.progressbar(length=1, label="eval", file=stream) as bar:

        def show(done: int, count: int) -> None:
            bar.length = count
            bar.update(done - bar.pos)

        yield show

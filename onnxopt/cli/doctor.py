"""`onnxopt doctor MODEL --data D`: what would silently ruin calibration."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxopt.cli.options import data_options, json_option, model_argument, shape_option

if TYPE_CHECKING:
    from onnxopt.data import Dataset, InputSpec
    from onnxopt.graph import Graph

EPILOG = """Exit codes: 0 nothing that should be acted on, 1 there is, 2 bad usage or input."""


@click.command(epilog=EPILOG)
@model_argument
@data_options("What to calibrate on, as for `run`; it has to be given.")
@click.option("--target", default="ort", show_default=True, metavar="NAME", help="What runs the model.")
@click.option(
    "--pictures",
    "-o",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder for four pictures as the model sees them; default MODEL.doctor in the current folder.",
)
@click.option("--no-pictures", is_flag=True, help="Draw nothing.")
@shape_option
@json_option
def doctor(
    *,
    model: Path,
    data: str | None,
    preprocess: str | None,
    samples: int | None,
    target: str,
    pictures: Path | None,
    no_pictures: bool,
    shapes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Find what silently ruins calibration.

    Wrong ranges of values, swapped channels, wrong letterbox, crop or padding; constant, dead, equal or too few
    inputs; labels that are not the model's classes, and boxes that do not fit. The float model is the judge: it is run
    on the samples as they are prepared, and as they might be instead. Says how sure it is, and what to do.

    Four pictures are drawn as the model sees them, with what it finds (orange) and what is labelled (green).
    """
    from onnxopt.cli.options import sized_inputs
    from onnxopt.doctor import examine
    from onnxopt.evaluation.health import check_weights
    from onnxopt.evaluation.measure import cost
    from onnxopt.model_io import load
    from onnxopt.registry import load_target
    from onnxopt.runtime.adapter import load_runtime

    if data is None:
        raise click.UsageError("give --data: what to calibrate on, as for `run`")
    table = load_target(target)
    graph = load(model)
    notes = check_weights(graph)
    inputs = sized_inputs(graph, shapes)
    dataset, assumed = _opened(graph, inputs, data, preprocess, samples)
    for note in (*notes, *dataset.notes):
        click.echo(note, err=True)
    diagnosis = examine(
        graph,
        inputs,
        dataset,
        macs=cost(graph, table, inputs).total_macs,
        runtime=load_runtime(table),
        assumed=assumed,
        pictures=None if no_pictures else pictures or Path(f"{model.stem}.doctor"),
    )
    click.echo(json.dumps(diagnosis.to_dict(), indent=2, ensure_ascii=False) if as_json else str(diagnosis))
    if diagnosis.pictures:
        click.echo(f"wrote {', '.join(diagnosis.pictures)}", err=True)
    if not diagnosis.sound:
        click.get_current_context().exit(1)


def _opened(
    graph: "Graph", inputs: "tuple[InputSpec, ...]", data: str, preprocess: str | None, samples: int | None
) -> "tuple[Dataset, bool]":
    """The data, and whether their preparation had to be made up for want of one."""
    from onnxopt.data import infer_preprocess, open_dataset
    from onnxopt.data.pictures import PictureSource
    from onnxopt.evaluation.samples import DEFAULT_SAMPLES

    def opened(how: str | None) -> "Dataset":
        return open_dataset(
            data,
            inputs,
            role="calibration",
            preprocess=how,
            samples=samples or DEFAULT_SAMPLES,
            metadata=graph.metadata,
        )

    if preprocess is None and infer_preprocess(graph.metadata, inputs) is None and len(inputs) == 1:
        tried = opened("imagenet")
        if isinstance(tried.source, PictureSource):
            return tried, True
    return opened(preprocess), False

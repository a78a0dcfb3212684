"""Options that several commands share, and what they come to."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from onnxopt.data import Dataset, InputSpec
    from onnxopt.graph import Graph
    from onnxopt.targets import Target

F = TypeVar("F", bound=Callable[..., Any])

SYNTHETIC_SAMPLES = 8
DATA_SAMPLES = 32

model_argument = click.argument("model", type=click.Path(path_type=Path))
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
shape_option = click.option(
    "--input-shape", "shapes", multiple=True, metavar="NAME:1x3x640x640", help="Size of a dynamic input."
)


def device_options(command: F) -> F:
    """`--device` and `--ssh-option`."""
    for decorate in (
        click.option(
            "--ssh-option",
            "ssh_options",
            multiple=True,
            metavar="NAME=VALUE",
            help="For ssh -o, e.g. IdentityFile=FILE.",
        ),
        click.option(
            "--device",
            metavar="ssh://[USER@]HOST[:PORT][/PYTHON]",
            help="Measure there: any machine with Python 3.8 and the target's runtime.",
        ),
    ):
        command = decorate(command)
    return command


def chosen_target(name: str, device: str | None, ssh_options: Sequence[str]) -> "Target":
    """The target, on a device where one is given.

    Raises:
        UsageError: The device cannot be used; or ssh is told something and there is no device.
    """
    from onnxopt.errors import UsageError
    from onnxopt.registry import load_target

    if device is None:
        if ssh_options:
            raise UsageError("--ssh-option goes with --device")
        return load_target(name)
    from onnxopt.device import target_on

    return target_on(device, name, ssh_options)


def data_options(data: str = "What to run on, as for `run`; default: synthetic pictures.") -> Callable[[F], F]:
    """`--data`, of which the help page says this, `--preprocess` and `--samples`."""

    def decorated(command: F) -> F:
        for decorate in (
            click.option("--samples", type=click.IntRange(min=1), help="Use at most so many samples."),
            click.option("--preprocess", metavar="SPEC", help="imagenet, yolo, yolox, or spelled out."),
            click.option("--data", metavar="PATH", help=data),
        ):
            command = decorate(command)
        return command

    return decorated


def sized_inputs(graph: "Graph", shapes: Sequence[str]) -> "tuple[InputSpec, ...]":
    """The model's inputs with numbers for all dimensions; what was chosen is said on stderr."""
    from onnxopt.evaluation.inputs import parse_input_shapes, resolve_inputs

    inputs, notes = resolve_inputs(graph, parse_input_shapes(shapes, graph))
    for note in notes:
        click.echo(f"{graph.source}: {note}", err=True)
    return inputs


def inputs_if_known(graph: "Graph", shapes: Sequence[str]) -> "tuple[tuple[InputSpec, ...] | None, list[str]]":
    """The same for commands that have something to say without them: None where they cannot be told; and notes."""
    from onnxopt.errors import UsageError
    from onnxopt.evaluation.inputs import parse_input_shapes, resolve_inputs

    overrides = parse_input_shapes(shapes, graph)
    try:
        return resolve_inputs(graph, overrides)
    except UsageError as error:
        if overrides:
            raise
        return None, [str(error)]


def chosen_data(
    graph: "Graph", inputs: "Sequence[InputSpec]", data: str | None, preprocess: str | None, samples: int | None
) -> "Dataset":
    """What the user gave to judge on, or synthetic samples, which is said on stderr."""
    from onnxopt.data import open_dataset, synthetic

    if data is None:
        click.echo("no --data given: run on synthetic pictures, so this says nothing about accuracy", err=True)
        return synthetic(inputs, samples or SYNTHETIC_SAMPLES)
    opened = open_dataset(
        data,
        inputs,
        role="evaluation",
        preprocess=preprocess,
        samples=samples or DATA_SAMPLES,
        metadata=graph.metadata,
    )
    for note in opened.notes:
        click.echo(note, err=True)
    return opened

"""The command `onnxopt`: a group whose commands are imported when they are used.

Exit codes: 0 done; 1 a pass or a check failed; 2 bad usage or input; 3 a gate of `--require` missed; 130 interrupted.
"""

try:
    from importlib import import_module
    from typing import Any

    import click

    from onnxopt.cli.words import check_words
    from onnxopt.errors import OnnxoptError
except KeyboardInterrupt:  # Ctrl-C before there is anything that could say so
    raise SystemExit(130) from None

# Each command stands in the module `onnxopt.cli.<name>` under its own name, with `_` for `-`.
_COMMANDS = (
    "run",
    "auto",
    "eval",
    "doctor",
    "inspect",
    "explain",
    "profile",
    "compare",
    "bench",
    "bisect",
    "batch",
    "passes",
    "targets",
    "new-pass",
)


class Commands(click.Group):
    """Finds commands by name and turns errors into one sentence and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names in the order of the help page."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command."""
        if cmd_name not in _COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command = getattr(import_module(f"onnxopt.cli.{name}"), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and look at its words."""
        name, command, words = super().resolve_command(ctx, args)
        if command is not None:
            check_words(command, words, ctx)
        return name, command, words

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Read the command line; click itself would end with 1 if that is interrupted."""
        try:
            return super().make_context(*args, **extra)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            raise click.exceptions.Exit(130) from None

    def invoke(self, ctx: click.Context) -> object:
        """Run, and report what goes wrong without a traceback unless `--debug` asks for it."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(130)
        except OnnxoptError as error:
            if ctx.params["debug"]:
                raise
            _end_if_interrupted(error)
            click.echo("\n".join([f"Error: {error}", *_notes(error)]), err=True)
            ctx.exit(error.exit_code)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click's own business
        except OSError as error:
            if ctx.params["debug"]:
                raise
            click.echo(f"Error: {error.filename or 'the output'}: {error.strerror or error}", err=True)
            ctx.exit(2)
        except MemoryError as error:
            if ctx.params["debug"]:
                raise
            why = f" ({error})" if str(error) else ""
            click.echo(f"Error: there is not enough memory{why}; give fewer samples at once, or smaller ones", err=True)
            ctx.exit(2)
        except Exception as error:
            if ctx.params["debug"]:
                raise
            _end_if_interrupted(error)
            kind = type(error).__name__
            click.echo(
                f"Error: onnxopt has a fault ({kind}: {error}).\n"
                "Please report it with what `onnxopt --debug …` prints for the same command.",
                err=True,
            )
            ctx.exit(1)


def _end_if_interrupted(error: BaseException | None) -> None:
    """End as after Ctrl-C where that is what is behind an error: packages in C++ make an ImportError of it.

    Raises:
        Exit: It is.
    """
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            click.echo("Interrupted.", err=True)
            raise click.exceptions.Exit(130)
        error = error.__cause__ or error.__context__


def _notes(error: BaseException | None) -> list[str]:
    """Notes that observers added, to the error or to what caused it."""
    notes: list[str] = []
    while error is not None:
        notes += getattr(error, "__notes__", [])
        error = error.__cause__
    return notes


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="onnxopt")
@click.option("--debug", is_flag=True, hidden=True, help="Show tracebacks.")
def main(debug: bool) -> None:
    """Make trained ONNX vision models small and fast, for a named runtime.

    Exit codes: 0 done, 1 a pass or check failed, 2 bad usage or input, 3 a gate of --require missed.
    """

# ruff: noqa: INP001 - a script
"""Write the pages that follow from the code: `docs/passes/*.md` and `docs/cli.md`.

python docs/generate.py            write them
python docs/generate.py --check    write nothing, exit 1 if any of them is stale
"""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from onnxopt.cli import describe
from onnxopt.cli.main import main as onnxopt_command
from onnxopt.registry import PASSES, PIPELINES, listing

DOCS = Path(__file__).parent
OWNER = "onnxopt"
GENERATED = "<!-- Written by docs/generate.py from the code; do not edit. -->\n\n"


def pages() -> dict[str, str]:
    """File name under `docs` to content."""
    passes = [entry for entry in listing(PASSES, "pass") if entry.owner == OWNER]
    pipelines = [entry for entry in listing(PIPELINES, "pipeline") if entry.owner == OWNER]
    broken = [entry.problem for entry in [*passes, *pipelines] if entry.problem]
    if broken:
        sys.exit("\n".join(broken))
    out = {f"passes/{e.name}.md": describe.pass_page(e.value, e.owner) for e in passes}
    out |= {f"passes/{e.name}.md": describe.pipeline_page(e.value, e.owner) for e in pipelines}
    lines = ["# Passes", "", "| pass | effect | |", "|---|---|---|"]
    lines += ["| [{0}]({0}.md) | {1} | {2} |".format(*describe.pass_row(e)) for e in passes]
    lines += ["", "# Named pipelines", "", "| pipeline | runs | |", "|---|---|---|"]
    lines += [f"| [{e.name}]({e.name}.md) | `{e.value.text}` | {e.value.summary} |" for e in pipelines]
    lines += ["", "What the effects mean:", "", *(f"* `{name}`: {words}" for name, words in describe.EFFECTS.items())]
    out["passes/README.md"] = "\n".join(lines) + "\n"
    out["cli.md"] = "# Command line\n\n" + "\n".join(_help(onnxopt_command, "onnxopt"))
    return {name: GENERATED + text for name, text in out.items()}


def _help(command: click.Command, path: str) -> Iterator[str]:
    """A command and its subcommands, each as a section; worded by us, for click's own layout changes."""
    arguments = [p for p in command.params if isinstance(p, click.Argument) and p.name != "stray"]
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden and p.name != "version"]
    usage = " ".join([path, *((p.metavar or str(p.name)).upper() for p in arguments)])
    yield f"## {path}\n\n`{usage}`\n\n{inspect.cleandoc(command.help or '')}\n"
    if options:
        rows = [f"| `{_spelled(p)}` | {p.help or ''}{_default(p)} |" for p in options]
        yield "\n".join(["| option | |", "|---|---|", *rows, ""])
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _help(inner, f"{path} {name}")


def _spelled(option: click.Option) -> str:
    value = ""
    if not option.is_flag:
        choices = option.type.choices if isinstance(option.type, click.Choice) else ()
        value = " " + (option.metavar or "\\|".join(map(str, choices)) or option.type.name.split()[0].upper())
    return ", ".join(option.opts) + value


def _default(option: click.Option) -> str:
    return f" Default: {option.default}." if option.show_default else ""


def main(check: bool) -> None:
    """Write, or compare with what is there."""
    wanted = pages()
    there = {f"passes/{file.name}" for file in (DOCS / "passes").glob("*.md")} | {"cli.md"}
    stale = [name for name, text in wanted.items() if not _same(DOCS / name, text)]
    left = sorted(there - set(wanted))
    if check:
        if stale or left:
            sys.exit(f"stale pages in docs: {', '.join([*stale, *left])}; run `make docs`")
        return
    for name in stale:
        (DOCS / name).parent.mkdir(exist_ok=True)
        (DOCS / name).write_text(wanted[name], encoding="utf-8")
    for name in left:
        (DOCS / name).unlink(missing_ok=True)


def _same(file: Path, text: str) -> bool:
    return file.is_file() and file.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    main("--check" in sys.argv[1:])

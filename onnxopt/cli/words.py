"""What click lets pass on a command line and nobody means: empty words, and options that are given twice."""

from collections.abc import Sequence

import click

_DATA = frozenset({"--data", "--eval-data"})


def check_words(command: click.Command, words: Sequence[str], parent: click.Context) -> None:
    """Refuse what is surely a mistake before anything is done.

    Shells make empty words of variables that are not set, and as a path one would be the current folder. Of an option
    that is given twice the last one would win silently.

    Args:
        command: Whose words they are.
        words: What stands behind its name.
        parent: Of the command.

    Raises:
        UsageError: A word is empty, or an option that takes one value is given twice.
    """
    context = click.Context(command, info_name=command.name, parent=parent)
    try:
        given, _, order = command.make_parser(context).parse_args(list(words))
    except click.UsageError:
        return  # it is said when the command itself reads them
    for param in order:
        value, name = given.get(param.name or ""), _name(param)
        once = isinstance(param, click.Option) and not (param.multiple or param.is_flag or param.count)
        if once and order.count(param) > 1:
            raise click.UsageError(f"{name} is given twice; give it once", context)
        if any(isinstance(word, str) and not word.strip() for word in _listed(value)):
            optional = ", or leave it out" if isinstance(param, click.Option) else ""
            advice = "give a folder or file" if name in _DATA else f"give it a value{optional}"
            raise click.UsageError(f"{name} is empty; {advice}", context)


def _name(param: click.Parameter) -> str:
    """As the user knows it: `--data`, `-o` and `--output` in one, or the name of an argument."""
    return " / ".join(param.opts) if isinstance(param, click.Option) else param.human_readable_name or "an argument"


def _listed(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else [value]

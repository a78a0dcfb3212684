"""Tables for a terminal."""

from collections.abc import Iterable, Sequence


def table(rows: Iterable[Sequence[str]], header: Sequence[str] = (), *, right: Iterable[int] = ()) -> str:
    """Rows in aligned columns, two blanks between them.

    Args:
        rows: Cells; a row may be shorter than others.
        header: Column titles, underlined.
        right: Columns that are flush right; numbers read better so.
    """
    body = [list(row) for row in rows]
    lines = [list(header), *body] if header else body
    count = max((len(line) for line in lines), default=0)
    widths = [max((len(line[i]) for line in lines if i < len(line)), default=0) for i in range(count)]
    if header:
        lines.insert(1, ["-" * width for width in widths])
    flush = set(right)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in flush else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=False))
        ).rstrip()
        for line in lines
    )


def bytes_text(size: int) -> str:
    """A file size for people, e.g. `13.57 MiB`."""
    if size >= 2**30:
        return f"{size / 2**30:.2f} GiB"
    return f"{size / 2**20:.2f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"


def count_text(number: int) -> str:
    """A large number for people, e.g. `3.26 G`."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)

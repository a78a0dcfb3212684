"""A document with something in every section, names that are out for trouble among it."""

import io

import numpy as np
from PIL import Image

from onnxopt.report.document import (
    Candidate,
    Document,
    Facts,
    GroupDamage,
    Layer,
    Mark,
    Pareto,
    Picture,
    Row,
    Spectrum,
    Stage,
    Table,
    Tile,
)

HOSTILE = "<script>alert('x')</script>$\\frac{a}{b}$\"&</svg>"


def jpeg(side=64):
    """A grey square."""
    stream = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), 128, np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def spectrum(name):
    """A triangle of values."""
    return Spectrum(name, (-1.0, 0.0, 1.0, 2.0), (10, 100, 1), -0.5, 1.5, 12.5, 0.05)


def full_document(name=HOSTILE):
    """Every section, each text being `name`."""
    return Document(
        title=name,
        lines=(name, "it is done"),
        tiles=(Tile("2.00", name, "good"), Tile("1 %", name, "bad")),
        figures=Table(name, ("before", name), (Row(name, ("1", "2"), name, "good"), Row("b", ("2", "1"), "", "bad"))),
        warnings=(name,),
        stages=(Stage(name, True, name, (name,), ((name, name),)), Stage("undone", False, "slower")),
        tables=(Table(name, ("AP",), (Row("one", ("0.5",)), Row("two", ("0.75",)), Row("none", ("",))), name, True),),
        pareto=Pareto(
            name,
            (
                Candidate(name, 10.0, 0.5, 0.9, 0.88, 0.92, 1000, front=True),
                Candidate("fast", 5.0, 0.1, 0.89, None, None, 500, front=True, pick=name),
                Candidate("bad", 6.0, 0.1, 0.5, 0.4, 0.6, 500, kept=False),
            ),
            name,
            0.85,
        ),
        layers=(
            *(
                Layer(f"{name}{i}", name, "int8", 0.1 * i, 40.0 - i, 1000 * i, ms, ms, name, i % 2 == 0, name)
                for i, ms in enumerate((0.3, 0.1, 10.0, 2.0))
            ),
            Layer("bare", "Add"),
            Layer("equal", "Add", sqnr_db=float("inf")),
        ),
        layers_text=name,
        spectra=(spectrum(name), spectrum("second")),
        damages=(GroupDamage(name, 64, 48, ((0.2, 0.5), (0.55, 0.1), (0.85, 0.0))), GroupDamage("b", 8, 8, ())),
        pictures=(
            Picture(
                name, jpeg(), 64, 64, (Mark(name, 0.9, (1, 1, 20, 20)),), (Mark("b", 0.4, (50, 5, 60, 20), False),)
            ),
            Picture(
                "classes", jpeg(), 64, 64, (Mark("cat", 0.9), Mark(name, 0.1, None, False)), (Mark("cat", 0.8),), name
            ),
        ),
        facts=(Facts(name, ((name, name),)),),
        recipe=name,
    )

"""Characters read wrong on rendered words: PP-OCR's recognizer in float, and onnxopt's int8 for each target.

Claim: with calibration words and no training, int8 reads at most one character in a hundred worse than float.

The words are those of the repository's LICENSE, in lower case, capitalised or in capitals, and numbers; they are drawn
with a seeded generator: size, colours, slope, blur, noise. No word is both calibrated and scored on. The character
error rate is the edit distance over the number of characters, as `jiwer` counts it.

The recognizer is that of the wheel `rapidocr-onnxruntime==1.4.4` (`pip download --no-deps rapidocr-onnxruntime==1.4.4`,
then unpack); it carries its characters in its metadata. As PP-OCR does it, a line becomes 48 rows high and at most 320
columns wide, blue first, from -1 to 1, with zeros to its right.
"""

import argparse
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import workbench
from accuracy import TARGETS, Candidate, candidates_for
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from workbench import markdown, number

from onnxopt import model_io
from onnxopt.data import Array, Sample
from onnxopt.evaluation.agreement import Comparison

MODEL = "ch_PP-OCRv4_rec_infer.onnx"
BAR = 1.0  # points of character error rate
INPUT, HEIGHT, WIDTH = "x", 48, 320
HEADER = ("candidate", "run by", "wrong characters", "above float", "words read as in float", "SQNR, dB", "held")


def draw_words(seed: int) -> list[str]:
    """Words and, for each four of them, a number; shuffled, each once."""
    text = (workbench.REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    generator = np.random.default_rng(seed)
    words = sorted(set(re.findall(r"[a-z]{4,14}", text.lower())))
    styled = [(str.lower, str.capitalize, str.upper)[generator.integers(3)](word) for word in words]
    numbers = {f"{generator.integers(10_000):,}.{generator.integers(100):02d}" for _ in words[::4]}
    return [str(word) for word in generator.permutation([*styled, *sorted(numbers)])]


def render(text: str, generator: np.random.Generator, font: Path | None) -> Array:
    """A picture of the text as the recognizer's input, float32[1, 3, 48, 320]."""
    size = int(generator.integers(12, 40))
    face = ImageFont.truetype(str(font), size) if font is not None else ImageFont.load_default(size)
    paper, ink = generator.integers(150, 256, 3), generator.integers(0, 130, 3)
    if generator.random() < 0.3:
        paper, ink = ink, paper
    left, top, right, bottom = (round(edge) for edge in face.getbbox(text))
    margin = int(generator.integers(2, 8))
    picture = Image.new("RGB", (right - left + 2 * margin, bottom - top + 2 * margin), tuple(paper.tolist()))
    ImageDraw.Draw(picture).text((margin - left, margin - top), text, font=face, fill=tuple(ink.tolist()))
    angle = generator.uniform(-3, 3)
    picture = picture.rotate(angle, Image.Resampling.BICUBIC, fillcolor=tuple(paper.tolist()))
    picture = picture.filter(ImageFilter.GaussianBlur(generator.uniform(0, 0.05 * size)))
    width = min(WIDTH, round(picture.width * HEIGHT / picture.height))
    pixels = np.asarray(picture.resize((width, HEIGHT), Image.Resampling.BILINEAR), np.float32)
    pixels = np.clip(pixels + generator.normal(0, 20, pixels.shape), 0, 255)[..., ::-1]
    line = np.zeros((1, 3, HEIGHT, WIDTH), np.float32)
    line[0, :, :, :width] = (pixels / 255 - 0.5).transpose(2, 0, 1) / 0.5
    return line


def samples(seed: int, font: Path | None) -> list[Sample]:
    """Rendered words, each with its text as the label."""
    generator = np.random.default_rng(seed + 1)
    return [Sample({INPUT: render(text, generator, font)}, text) for text in draw_words(seed)]


def read(scores: Array, characters: Sequence[str]) -> str:
    """The text of float[1, steps, characters]: best of each step, repeats once, the blank, which is 0, left out."""
    best = (int(index) for index, _ in groupby(scores[0].argmax(axis=1)))
    return "".join(characters[index] for index in best if index)


@dataclass
class Reader:
    """One candidate while it reads."""

    candidate: Candidate
    distance: Comparison = field(default_factory=Comparison)
    texts: list[str] = field(default_factory=list)


def judge(candidates: Sequence[Candidate], lines: Sequence[Sample], threads: int) -> list[dict[str, Any]]:
    """Let all candidates read all lines; one record each."""
    # The file lists neither the blank, which comes first, nor the space, which comes last.
    characters = ["", *model_io.load(candidates[0].file).metadata["character"].splitlines(), " "]
    sessions = [candidate.open(threads) for candidate in candidates]
    readers = [Reader(candidate) for candidate in candidates]
    for line in lines:
        outputs = [session.run(line.feeds) for session in sessions]
        for reader, found in zip(readers, outputs, strict=True):
            (scores,) = found.values()
            reader.texts.append(read(scores, characters).strip())
            reader.distance.update(outputs[0], found, line)
    truth = [line.label for line in lines]
    return [figures(reader, readers[0], truth) for reader in readers]


def figures(reader: Reader, reference: Reader, truth: list[str]) -> dict[str, Any]:
    """What was found of one candidate; `held` is None for the float model."""
    errors, least = (100 * jiwer.cer(truth, each.texts) for each in (reader, reference))
    same = [ours == theirs for ours, theirs in zip(reader.texts, reference.texts, strict=True)]
    return {
        "candidate": reader.candidate.name,
        "run_by": reader.candidate.run_by,
        "cer_percent": errors,
        "above_float": errors - least,
        "same_words": sum(same) / len(same),
        "sqnr_db": reader.distance.result().worst_sqnr_db,
        "held": errors - least <= BAR if reader.candidate.ours else None,
        "lines": len(truth),
    }


def table(found: Sequence[dict[str, Any]]) -> str:
    """The figures for people."""
    return markdown(
        HEADER,
        [
            (
                f["candidate"],
                f["run_by"],
                number(f["cer_percent"], 2, " %"),
                number(f["above_float"], 2),
                number(100 * f["same_words"], 1, " %"),
                number(f["sqnr_db"], 1),
                {None: "-", True: "yes", False: "NO"}[f["held"]],
            )
            for f in found
        ],
    )


def main() -> None:
    """Render, build, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ocr", type=Path, metavar="DIR", required=True, help="folder `models` of the wheel")
    parser.add_argument("--passes", default="quantize", help="what onnxopt runs; default %(default)s")
    parser.add_argument("--targets", default=TARGETS, metavar="NAMES", help="with commas; default %(default)s")
    parser.add_argument("--samples", type=int, default=128, help="words to calibrate on; default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of words and rendering; default %(default)s")
    parser.add_argument("--font", type=Path, metavar="FILE", help="a TrueType font; default: Pillow's own")
    parser.add_argument("--threads", type=int, default=1, help="of every session; default %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here, e.g. under results/")
    options = parser.parse_args()
    facts = workbench.machine()
    print(f"{workbench.describe_machine(facts)}; passes {options.passes}, {options.samples} calibration words\n")
    lines = samples(options.seed, options.font)
    calibration, scored = lines[: options.samples], lines[options.samples :]
    with tempfile.TemporaryDirectory() as folder:
        candidates = candidates_for(
            options.ocr / MODEL,
            options.targets.split(","),
            Path(folder),
            passes=options.passes,
            data=[line.feeds for line in calibration],
            input_shapes={INPUT: (1, 3, HEIGHT, WIDTH)},
        )
        found = judge(candidates, scored, options.threads)
    print(f"**{MODEL}**, {len(scored)} words\n\n{table(found)}\n", flush=True)
    workbench.write_results(options.json, "ocr_errors", facts, found)


if __name__ == "__main__":
    main()

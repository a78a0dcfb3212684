"""One recipe over many models: what is done is kept by content, what fails does not stop the others."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

from onnxopt import formats, model_io
from onnxopt.api import optimize
from onnxopt.errors import GateMissed, OnnxoptError, UsageError
from onnxopt.evaluation.samples import open_samples
from onnxopt.lock import Lock, lock_now
from onnxopt.optimization.subject import Subject
from onnxopt.recipe import Recipe, naming_recipe
from onnxopt.report.ci import Case
from onnxopt.report.run import RunReport
from onnxopt.report.summary import figures
from onnxopt.runtime.adapter import processor_of
from onnxopt.targets import Target

RECORD = "batch.json"


@dataclass(frozen=True)
class Job:
    """One model to be optimized.

    Attributes:
        model: Its file.
        output: What it becomes.
        key: Digest of everything that decides the result; empty where the model cannot be opened.
        data: Digest of its samples; empty likewise.
        problem: Why it cannot be opened.
    """

    model: Path
    output: Path
    key: str = ""
    data: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Entry:
    """What became of one model.

    Attributes:
        case: Name, figures and problem, for tables.
        cached: Whether it had been done before.
    """

    case: Case
    cached: bool = False


def find_models(patterns: Iterable[str]) -> list[Path]:
    """Files that patterns such as `models/*.onnx` stand for, each once, in order.

    Raises:
        UsageError: A pattern stands for none.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        files = sorted(glob(pattern, recursive=True)) or [pattern]  # noqa: PTH207  (it may be absolute)
        if files == [pattern] and not Path(pattern).is_file():
            raise UsageError(f"{pattern}: no such model")
        found |= dict.fromkeys(Path(file) for file in files)
    return list(found)


def plan(models: Sequence[Path], recipe: Recipe, target: Target, folder: Path, ending: str = ".onnx") -> list[Job]:
    """See what there is to do, and what decides each result.

    Args:
        models: Files.
        recipe: What is run on each.
        target: For what.
        folder: Where results go.
        ending: Of the results, see `formats`.

    Raises:
        UsageError: Two results would bear one name, the ending does not fit the target, or a result would replace
            a file of somebody else's or its model.
    """
    jobs: dict[Path, Job] = {}
    for model in models:
        output = folder / f"{model.stem}.opt{ending}"
        formats.check(output, target)
        if output in jobs:
            raise UsageError(f"{jobs[output].model} and {model} would both become {output}; batch them apart")
        for file in formats.files_of(output):
            if file.exists() and not formats.is_ours(file):
                raise UsageError(f"{file} is there already and onnxopt did not write it; give another folder with -o")
        jobs[output] = _job(model, output, recipe, target)
    return list(jobs.values())


def _job(model: Path, output: Path, recipe: Recipe, target: Target) -> Job:
    try:
        subject = Subject(model, target)
        with naming_recipe(recipe):
            samples = open_samples(
                subject.graph, subject.inputs, recipe.source, recipe.evaluation, recipe.preprocess, recipe.samples
            )
    except OnnxoptError as error:
        return Job(model, output, problem=str(error))
    data = hashlib.sha256(f"{samples.data.digest()} {samples.evaluation.digest()}".encode()).hexdigest()
    weights = [_digest(file) for file in model_io.external_files(model)]
    runtime = subject.runtime.version if subject.runtime is not None else ""
    lock = lock_now(recipe, target.name, {})
    facts = [subject.digest, weights, data, str(lock), runtime, processor_of(subject.runtime), output.suffix]
    return Job(model, output, hashlib.sha256(json.dumps(facts).encode()).hexdigest(), data)


def lock_of(jobs: Iterable[Job], recipe: Recipe, target: Target) -> Lock:
    """What these results come from."""
    return lock_now(recipe, target.name, {job.model.name: job.data for job in jobs if job.data})


def run_jobs(
    jobs: Sequence[Job], recipe: Recipe, target: Target, folder: Path, tell: Callable[[Entry], object] = lambda _: None
) -> list[Entry]:
    """Do what has not been done yet; a model that fails does not stop the others.

    Args:
        jobs: What `plan` found.
        recipe: What is run on each.
        target: For what.
        folder: Where results and the record of them go; is made where it is not there.
        tell: Is told each entry when it is known.

    Raises:
        UsageError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: the folder cannot be made ({error.strerror}); give another with -o") from None
    record = _Record(folder / RECORD)
    entries = []
    for job in jobs:
        entry = record.entry(job) or _run(job, recipe, target)
        record.keep(job, entry)
        tell(entry)
        entries.append(entry)
    return entries


def _run(job: Job, recipe: Recipe, target: Target) -> Entry:
    if job.problem:
        return Entry(Case(str(job.model), problem=job.problem))
    try:
        result = optimize(job.model, recipe=recipe, target=target, ending=formats.ending_of(job.output))
        result.save(job.output)
    except GateMissed as error:
        measured = figures(error.report) if isinstance(error.report, RunReport) else {}
        return Entry(Case(str(job.model), measured, str(error), missed=True))
    except OnnxoptError as error:
        return Entry(Case(str(job.model), problem=str(error)))
    return Entry(Case(str(job.model), figures(result.report)))


class _Record:
    """What was done before, in one file that is written anew after each model."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            known = {}
        self._known: dict[str, Any] = known if isinstance(known, dict) else {}

    def entry(self, job: Job) -> Entry | None:
        """The entry of a job that was done before, if its result is still what it was."""
        known = self._known.get(job.output.name)
        if not job.key or not isinstance(known, dict) or known.get("key") != job.key:
            return None
        if known.get("files") != _digests(job.output):
            return None
        return Entry(Case(str(job.model), known["figures"]), cached=True)

    def keep(self, job: Job, entry: Entry) -> None:
        """Remember an entry; of what failed nothing is kept, so that it is tried again."""
        self._known.pop(job.output.name, None)
        if not entry.case.problem:
            files = _digests(job.output)
            self._known[job.output.name] = {"key": job.key, "files": files, "figures": dict(entry.case.figures)}
        # Models by name; figures stay in the order of the table that they are shown in.
        known = {name: self._known[name] for name in sorted(self._known)}
        model_io.write_text(self._file, json.dumps(known, indent=1) + "\n")


def _digests(output: Path) -> dict[str, str]:
    return {file.name: _digest(file) for file in formats.files_of(output) if file.is_file()}


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

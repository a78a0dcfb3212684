"""Samples for a model that is run at a batch of more than one: each is repeated until it fills the batch."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from onnxopt.data import Dataset, InputSpec, Sample
from onnxopt.data.dataset import Digest, Source
from onnxopt.evaluation.inputs import fill_batch


class FilledSource:
    """Another source's samples, each as a whole batch."""

    def __init__(self, source: Source, inputs: Sequence[InputSpec]) -> None:
        self._source = source
        self._inputs = inputs
        self.skipped = source.skipped

    def __len__(self) -> int:
        return len(self._source)

    def read(self, indices: Sequence[int] | None) -> Iterator[Sample]:
        """Yield the samples, repeated."""
        for sample in self._source.read(indices):
            yield replace(sample, feeds=fill_batch(sample.feeds, self._inputs))

    def add_to(self, digest: Digest, indices: Sequence[int] | None) -> None:
        """Add what identifies the samples; that they are repeated follows from the model."""
        self._source.add_to(digest, indices)


def fill_dataset(dataset: Dataset, inputs: Sequence[InputSpec]) -> Dataset:
    """The data set with samples that fill the batch that the model is run at; itself where that is 1."""
    if all(not spec.shape or spec.shape[0] == spec.sample_shape[0] for spec in inputs):
        return dataset
    return replace(dataset, source=FilledSource(dataset.source, inputs))

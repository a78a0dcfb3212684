"""One walk over a model that has lost channels, refitting each layer that has lost inputs.

Sequential: a layer is fitted on what it reads in the model as refitted so far, to what it gave in the model before.
Where its output is added to another branch that is known by then, it is fitted to the sum before, so that errors
which the other branch carries are made up for too. How far is chosen layer by layer on samples that nothing is fitted
on: samples that earlier layers were fitted on show smaller errors than others, and seem easier to correct than they
are. A channel that is gone has zeros in the weights of all that read it; the graph itself is cut in the end.
"""

from collections.abc import Sequence

import numpy as np

from onnxopt.analysis.channels.atoms import Kept
from onnxopt.analysis.compensation.abreast import Abreast, errors_of
from onnxopt.analysis.compensation.fitting import refits
from onnxopt.analysis.compensation.reading import Reader
from onnxopt.data import Feeds
from onnxopt.graph import Graph


def refit_readers(
    graph: Graph,
    before: Graph,
    readers: Sequence[Reader],
    kept: Kept,
    samples: tuple[Sequence[Feeds], Sequence[Feeds]],
) -> int:
    """Refit, in place, every reader from the first that has lost channels on: the others make up for errors before.

    Args:
        graph: A copy of `before`; what is written are weights and biases, zeros for channels that are gone.
        before: The model that it was.
        readers: In order of execution.
        kept: What is left.
        samples: To fit on, and to choose on how strongly errors are corrected.

    Returns:
        How many were refitted.
    """
    first = next((i for i, r in enumerate(readers) if not kept.all(r.roots)), len(readers))
    hurt = readers[first:]
    walks, judge = (Abreast(before, graph, feeds) for feeds in samples)
    for reader in hurt:
        weight, bias = reader.matrix(graph), reader.bias(graph)
        moments = walks.moments(reader, centred=bias is not None)
        choices = refits(moments, weight, bias, kept.where(reader.roots))
        errors = errors_of(judge.rows(reader), choices)
        reader.write(graph, *choices[int(np.argmin(errors))])
    return len(hurt)

"""What a layer sees: means and covariances of its patches and of what it should give, added up row by row.

Rows come sample by sample and are not kept: memory is that of one covariance matrix.
"""

from dataclasses import dataclass

import numpy as np

from onnxopt.analysis.compensation.reading import Float32Array, FloatArray


@dataclass(frozen=True)
class Moments:
    """Means and covariances of patches z and wanted outputs t.

    Attributes:
        rows: How many rows they are from.
        mean: Of z, float64[groups, length].
        covariance: Of z, float64[groups, length, length].
        wanted: Mean of t, float64[groups, columns]; None where no outputs were given.
        products: Covariance of t with z, float64[groups, columns, length]; None likewise.
    """

    rows: int
    mean: FloatArray
    covariance: FloatArray
    wanted: FloatArray | None = None
    products: FloatArray | None = None


class Sums:
    """Adds rows up.

    Args:
        shape: Groups, columns, length.
        with_outputs: Whether wanted outputs are added too.
    """

    def __init__(self, shape: tuple[int, int, int], *, with_outputs: bool) -> None:
        groups, columns, length = shape
        self._rows = 0
        self._sum = np.zeros((groups, length))
        self._squares = np.zeros((groups, length, length))
        self._given = np.zeros((groups, columns)) if with_outputs else None
        self._products = np.zeros((groups, columns, length)) if with_outputs else None

    def add(self, rows: Float32Array, outputs: Float32Array | None = None) -> None:
        """Add rows, [groups, rows, length], and outputs, [groups, rows, columns]."""
        self._rows += rows.shape[1]
        self._sum += rows.sum(axis=1, dtype=np.float64)
        self._squares += np.matmul(rows.transpose(0, 2, 1), rows)
        if self._given is not None and self._products is not None and outputs is not None:
            self._given += outputs.sum(axis=1, dtype=np.float64)
            self._products += np.matmul(outputs.transpose(0, 2, 1), rows)

    def result(self, *, centred: bool = True) -> Moments:
        """Means and covariances so far; `centred=False`: second moments about 0, means 0, for layers without a bias."""
        count = max(1, self._rows)
        mean = self._sum / count if centred else np.zeros_like(self._sum)
        covariance = self._squares / count
        if centred:
            covariance -= mean[:, :, None] * mean[:, None, :]
        if self._given is None or self._products is None:
            return Moments(self._rows, mean, covariance)
        wanted = self._given / count if centred else np.zeros_like(self._given)
        products = self._products / count - wanted[:, :, None] * mean[:, None, :]
        return Moments(self._rows, mean, covariance, wanted, products)

"""From observed activations to ranges: statistics per tensor, range methods, quantization parameters, the table.

* `statistics`: `TensorStatistics` accumulates one tensor over the images in constant memory.
* `elementwise`: functions by which the statistics of one tensor follow from those of another.
* `methods`: from statistics to a `Range`, by `minmax`, `mean-minmax`, `percentile`, `entropy`, `mse` or `auto`.
* `parameters`: from a range to a scale and a zero point.
* `table`: `CalibrationTable`, the artefact that passes read and that is saved to a file.
"""

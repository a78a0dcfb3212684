"""Zeros in weights, in any place or N of every M, the rest making up for them: what the pass `sparsify` is made of.

* `rule`: which zeros are wanted, and whether weights have them;
* `layers`: which layers can have them;
* `elimination`, `polishing`: new weights of one layer;
* `sweep`: all layers in order, on samples.
"""

from onnxopt.analysis.sparsity.layers import Layer, find_layers, write
from onnxopt.analysis.sparsity.rule import Rule
from onnxopt.analysis.sparsity.sweep import Sparse, magnitudes, reconstruct

__all__ = ["Layer", "Rule", "Sparse", "find_layers", "magnitudes", "reconstruct", "write"]

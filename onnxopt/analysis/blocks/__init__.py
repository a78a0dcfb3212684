"""Residual blocks that can go, and what makes up for them: what the pass `drop-blocks` is made of.

* `finding`: the blocks of a graph;
* `standing_in`: what is put in a block's place;
* `trial`: what the removal of each costs, and the choice;
* `following`: layers behind refitted.
"""

from onnxopt.analysis.blocks.finding import Block, find_blocks
from onnxopt.analysis.blocks.following import Refitted, find_refittable, refit_following
from onnxopt.analysis.blocks.standing_in import FORMS, StandIn, replace_block, settle
from onnxopt.analysis.blocks.trial import Price, Trials

__all__ = [
    "FORMS",
    "Block",
    "Price",
    "Refitted",
    "StandIn",
    "Trials",
    "find_blocks",
    "find_refittable",
    "refit_following",
    "replace_block",
    "settle",
]

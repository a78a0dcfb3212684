"""Kernels find the layers that they stand for."""

import pytest

from onnxopt.profiling.mapping import Mapping
from onnxopt.runtime.kernel_time import KernelTime
from onnxopt.testing import parse_graph

ORIGINAL = """(float[1,3,8,8] x) => (float[1,4,8,8] y) <
    float[4,3,1,1] w, float[4] s, float[4] b, float[4] m, float[4] v, float[4,4,1,1] w2
> {
    conv = Conv (x, w)
    norm = BatchNormalization (conv, s, b, m, v)
    act = Relu (norm)
    y = Conv (act, w2)
}"""

QUANTIZED = """(float[1,3,8,8] x) => (float[1,4,8,8] y) <
    float scale = {0.1}, uint8 zero = {128}, float[4,3,1,1] w, float[4] b, float[4,4,1,1] w2
> {
    xq = QuantizeLinear (x, scale, zero)
    xf = DequantizeLinear (xq, scale, zero)
    norm = Conv (xf, w, b)
    act = Relu (norm)
    aq = QuantizeLinear (act, scale, zero)
    af = DequantizeLinear (aq, scale, zero)
    part = Conv (af, w2)
    y = Relu (part)
}"""


def kernel(name, op, *origins, readers=()):
    return KernelTime(name, op, 1.0, "int8", (name, *origins), readers, 0)


@pytest.fixture
def place():
    """Name the layer of one kernel of several, and say whether it converts."""
    model, original = parse_graph(QUANTIZED), parse_graph(ORIGINAL)
    model.name_nodes()

    def find(*kernels):
        found = Mapping(model, original, kernels).place(kernels[0])
        return found.layer.outputs[0].name if found.layer is not None else None, found.conversion

    return find


def test_a_convolution_with_its_normalization_folded_is_the_convolution(place):
    assert place(kernel("Conv", "QLinearConv", "norm")) == ("conv", False)


def test_quantizers_belong_to_what_makes_their_tensor(place):
    assert place(kernel("q", "QuantizeLinear", "aq")) == ("act", True)


def test_a_quantizer_at_the_input_belongs_to_the_first_layer(place):
    assert place(kernel("q", "QuantizeLinear", "xq")) == ("conv", True)


def test_a_nameless_reorder_belongs_to_what_reads_it(place):
    reorder = kernel("reorder", "ReorderInput", readers=("Transpose_9",))
    transpose = kernel("Transpose_9", "Transpose", readers=("last",))
    last = kernel("last", "QLinearConv", "part")
    assert place(reorder, transpose, last) == ("y", True)


def test_a_part_of_a_layer_that_a_pass_split_belongs_to_the_layer_behind(place):
    assert place(kernel("last", "QLinearConv", "part")) == ("y", False)


def test_what_has_no_name_anywhere_has_no_layer(place):
    assert place(kernel("mystery", "Attention")) == (None, False)

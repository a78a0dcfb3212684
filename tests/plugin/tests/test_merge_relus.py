from onnxopt_example_plugin.merge_relus import MergeRelus

from onnxopt.testing import assert_rewrites


def test_the_second_goes():
    assert_rewrites(
        MergeRelus(),
        "(float[2,3] x) => (float[2,3] y) { a = Relu (x)  y = Relu (a) }",
        "(float[2,3] x) => (float[2,3] y) { y = Relu (x) }",
    )


def test_most():
    assert_rewrites(
        MergeRelus(most=1),
        "(float[2,3] x) => (float[2,3] y) { a = Relu (x)  b = Relu (a)  y = Relu (b) }",
        "(float[2,3] x) => (float[2,3] y) { a = Relu (x)  y = Relu (a) }",
    )


def test_two_outputs_are_left_alone():
    assert_rewrites(
        MergeRelus(),
        "(float[2,3] x) => (float[2,3] a, float[2,3] y) { a = Relu (x)  y = Relu (a) }",
        None,
        notes=["its input and its output are both outputs of the model"],
    )


def test_other_activations_are_left_alone():
    assert_rewrites(MergeRelus(), "(float[2,3] x) => (float[2,3] y) { a = Sigmoid (x)  y = Relu (a) }", None)

"""The small parts: padding, pooling, normalization, whitening."""

import pytest
import torch
from torch.nn import functional

from training.networks import build
from training.networks.fastcifar import BiasedNorm, passing_conv
from training.networks.pooling import AdaptiveAveragePool
from training.networks.same_padding import SameConv2d, same_padding
from training.networks.vgg import LocalResponseNorm


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (224, 3, 2, (0, 1)),  # even sizes: the odd pixel goes to the far side
        (225, 3, 2, (1, 1)),
        (112, 5, 2, (1, 2)),
        (7, 5, 1, (2, 2)),
        (1, 3, 2, (1, 1)),
        (4, 1, 2, (0, 0)),  # a kernel smaller than its stride needs none
    ],
)
def test_same_padding_is_tensorflows(size, kernel, stride, expected):
    """By the rule of TensorFlow's guide to convolution, worked out by hand."""
    assert same_padding(size, kernel=kernel, stride=stride) == expected


@pytest.mark.parametrize("size", [(1, 1), (8, 9), (31, 14), (64, 57)])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_same_convolution_reads_the_right_pixels(size, kernel, stride):
    """Compared with a convolution of a canvas padded pixel by pixel."""
    torch.manual_seed(0)
    layer = SameConv2d(2, 4, kernel, stride)
    x = torch.randn(1, 2, *size)
    (top, bottom), (left, right) = (
        same_padding(side, kernel=kernel, stride=stride) for side in size
    )
    canvas = torch.zeros(1, 2, size[0] + top + bottom, size[1] + left + right)
    canvas[:, :, top : top + size[0], left : left + size[1]] = x

    y = layer(x)

    expected = functional.conv2d(canvas, layer.weight, layer.bias, stride=stride)
    assert y.shape[2:] == tuple(-(-side // stride) for side in size)
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("size", [(6, 6), (12, 6), (13, 13), (1, 1), (7, 20)])
@pytest.mark.parametrize("outputs", [1, 6, 7])
def test_adaptive_pooling_averages_the_windows_that_torch_averages(size, outputs):
    """The two constant matrices are the same linear map."""
    x = torch.randn(2, 3, *size)

    expected = functional.adaptive_avg_pool2d(x, outputs)

    torch.testing.assert_close(AdaptiveAveragePool(outputs)(x), expected)


def test_local_response_norm_is_the_formula_of_the_paper():
    """Summed channel by channel, with alpha divided by n."""
    x = torch.randn(1, 7, 2, 2) * 10
    expected = torch.empty_like(x)
    for c in range(7):
        near = x[:, max(0, c - 2) : c + 3]
        expected[:, c] = x[:, c] / (2 + 1e-4 / 5 * near.square().sum(1)) ** 0.75

    torch.testing.assert_close(LocalResponseNorm()(x), expected)


def test_whitened_patches_are_uncorrelated_with_equal_variance():
    """On images whose neighboring pixels are nearly the same."""
    torch.manual_seed(0)
    images = functional.avg_pool2d(torch.randn(64, 3, 34, 34), 3, stride=1) * 3
    network = build("fastcifar_94", classes=10)

    network.whiten(images)

    with torch.no_grad():
        bias = network.whitening.bias.view(1, -1, 1, 1)
        y = (network.whitening(images) - bias).transpose(0, 1).flatten(1)  # [24, …]
    moments = y @ y.T / y.shape[1]
    torch.testing.assert_close(moments[:12, :12], torch.eye(12), atol=0.02, rtol=0)
    torch.testing.assert_close(y[12:], -y[:12])


def test_the_whitening_layer_is_not_trained():
    """Its filters are frozen; its bias is not, for the first epochs train it."""
    whitening = build("fastcifar_94", classes=10).whitening

    assert (whitening.weight.requires_grad, whitening.bias.requires_grad) == (
        False,
        True,
    )


def test_fresh_layers_of_the_fast_network_pass_their_input_on():
    """Dirac initialization: the first filters copy, the others are random."""
    x = torch.randn(1, 4, 8, 8)

    y = passing_conv(4, 6)(x)

    torch.testing.assert_close(y[:, :4], x)
    assert not torch.allclose(y[:, 4], x[:, 0])


def test_a_biased_norm_is_a_batch_norm_whose_gain_stays_one():
    """In training and with running averages; the gain is no parameter."""
    torch.manual_seed(0)
    ours, theirs = BiasedNorm(3), torch.nn.BatchNorm2d(3, eps=1e-12, momentum=0.4)
    x = torch.randn(8, 3, 4, 4) * 5 + 1

    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
    assert [name for name, _ in ours.named_parameters()] == ["bias"]

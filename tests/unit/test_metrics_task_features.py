"""Features of a segmenter's encoder, on every segmenter and on networks worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from bench.plan import TASK
from bench.registry import SEGMENTERS
from metrics.extractors.task import TaskFeatures

Volumes = NDArray[np.float32]


def volumes(n: int, side: int = 32) -> Volumes:
    return np.random.default_rng(0).random((n, side, side, side)).astype(np.float32)


def segmenter(name: str) -> nn.Module:
    torch.manual_seed(0)
    plugin = SEGMENTERS.get(name)
    network: nn.Module = plugin.build(1, 3, (32, 32, 32), plugin.Config())
    return network


@pytest.mark.parametrize("name", ["unet", "resunet", "wideresunet", "dynunet", "vnet"])
def test_every_segmenter_has_features_that_depend_on_one_volume_alone(name: str) -> None:
    network = segmenter(name)
    images = volumes(2)
    one, two = (TaskFeatures(network, "ab", batch_size=size) for size in (1, 2))
    features = one(images)
    n, d = features.shape
    assert n == 2
    assert 100 < d < 4000
    assert features.dtype == np.float64
    assert np.isfinite(features).all()
    tolerance = {"rtol": 1e-5, "atol": 1e-5 * np.abs(features).max()}
    np.testing.assert_allclose(two(images), features, **tolerance)
    np.testing.assert_allclose(two(images[::-1])[::-1], features, **tolerance)
    np.testing.assert_array_equal(one(images[1:]), features[1:])
    # Volumes are told apart: what follows an instance norm would have the same moments in all.
    assert (features.std(axis=0) > 1e-6 * np.abs(features).max()).mean() > 0.95
    assert not network.training
    assert not any(module._forward_hooks for module in network.modules())


def test_a_networks_own_features_are_the_ones_the_harness_plans() -> None:
    assert (TASK.name, TASK.version, TASK.protocol) == (
        TaskFeatures.name,
        TaskFeatures.version,
        TaskFeatures.protocol,
    )
    assert TaskFeatures(segmenter("unet"), "ab").sha256 == "ab"


class TwoLevels(nn.Module):
    """Full resolution, half of it (twice, with a norm), and back: a U-Net in five lines."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(1, 2, 3, padding=1)
        self.down = nn.Conv3d(2, 3, 2, stride=2)
        self.norm = nn.InstanceNorm3d(3)
        self.again = nn.Conv3d(3, 4, 1)
        self.up = nn.ConvTranspose3d(4, 2, 2, stride=2)
        self.out = nn.Conv3d(2, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.down(self.first(x).relu()).relu()
        result: torch.Tensor = self.out(self.up(self.again(self.norm(x)).relu()))
        return result


def test_moments_of_the_last_convolution_of_each_level_of_the_encoder() -> None:
    torch.manual_seed(1)
    network = TwoLevels().eval()
    images = volumes(2, side=8)
    with torch.no_grad():
        first = network.first(torch.from_numpy(images)[:, None])
        again = network.again(network.norm(network.down(first.relu()).relu()))
    expected = []
    for response, convolution in ((first, network.first), (again, network.again)):
        values = response.numpy().astype(np.float64)
        norm = np.sqrt((convolution.weight.detach().numpy() ** 2).sum(axis=(1, 2, 3, 4)))
        expected += [values.mean(axis=(2, 3, 4)) / norm, values.std(axis=(2, 3, 4)) / norm]
    found = TaskFeatures(network, "")(images)
    assert found.shape == (2, 2 * (2 + 4))
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), rtol=1e-5, atol=1e-6)


def test_the_scale_of_a_normalised_filter_means_nothing() -> None:
    network = segmenter("unet")
    features = TaskFeatures(network, "")(volumes(2))
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv3d)]
    with torch.no_grad():  # the last one gives the logits and is followed by no norm
        for convolution in convolutions[:-1]:
            convolution.weight *= 3
            convolution.bias *= 3
    np.testing.assert_allclose(
        TaskFeatures(network, "")(volumes(2)), features, rtol=0.01, atol=0.01
    )


def test_bf16_autocast_around_it_changes_nothing() -> None:
    extractor = TaskFeatures(segmenter("unet"), "")
    expected = extractor(volumes(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(extractor(volumes(1)), expected)


def test_what_has_no_features_is_refused() -> None:
    with pytest.raises(ValueError, match="Flatten has no 3D convolutions"):
        TaskFeatures(nn.Flatten(), "")(volumes(1))
    for shape in ((0, 32, 32, 32), (32, 32, 32)):
        with pytest.raises(ValueError, match=r"expected \(B, D, H, W\), B >= 1"):
            TaskFeatures(segmenter("unet"), "")(np.zeros(shape))

"""Features of a segmenter's encoder, on every segmenter and on networks worked out by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

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


def test_raising_their_version_changes_what_is_planned() -> None:
    """In a process of its own: one number stands for the code, and both read it."""
    code = (
        "import metrics.extractors as declared\n"
        "declared.TASK_VERSION = sys.argv[1]\n"
        "import bench\n"
        "from bench.config import resolve\n"
        "from bench.plan import TASK, DataFacts, ExtractorFacts, make_plan\n"
        "assert 'torch' not in sys.modules\n"
        "from metrics.extractors.task import TaskFeatures\n"
        "config = resolve('quick', {}, [], 'copycat', 'none', {})\n"
        "data = DataFacts('toy', 'f' * 64, {0: 'background', 1: 'organ'}, (), 6, 2, 4)\n"
        "cells = make_plan(config, data, ExtractorFacts('texture'))\n"
        "print(TASK.version, TaskFeatures.version)\n"
        "print(*(c.key for c in cells if 'labeller' in c.needs and c.kind == 'features'))\n"
        "print(*(c.key for c in cells if c.kind == 'task-score'))\n"
        "print(*(c.key for c in cells if c.kind == 'score'))\n"
    )
    found = []
    for version in ("8", "9"):
        command = [sys.executable, "-c", f"import sys\n{code}", version]
        ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        lines = [line.split() for line in ran.stdout.splitlines()]
        assert lines[0] == [version, version]
        found.append(lines)
    for before, after in zip(found[0][1:3], found[1][1:3], strict=True):
        assert len(before) == len(after) > 1
        assert not set(before) & set(after)
    assert found[0][3] == found[1][3]


class Normalised(nn.Module):
    """Batch normalisation mixes volumes while it trains, and must not here."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(1, 3, 3, padding=1), nn.BatchNorm3d(3), nn.ReLU(), nn.Conv3d(3, 4, 2, 2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(x)
        return result


@pytest.mark.parametrize("make", [Normalised, lambda: segmenter("unet")], ids=["batch", "unet"])
def test_neither_batch_size_nor_order_changes_features(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(3)
    network = make().train()
    images = volumes(5) * np.linspace(0.2, 1, 5, dtype=np.float32)[:, None, None, None]
    alone = np.concatenate([TaskFeatures(network, "")(image[None]) for image in images])
    scale = np.abs(alone).max(axis=0)  # of each feature: a mean near 0 is rounded like a large one
    order = np.random.default_rng(4).permutation(5)
    for batch_size in (1, 2, 3, 5):
        extractor = TaskFeatures(network.train(), "", batch_size=batch_size)
        for rows, expected in ((images, alone), (images[order], alone[order])):
            assert (np.abs(extractor(rows) - expected) <= 1e-5 * scale + 1e-9).all()


@pytest.mark.parametrize(
    "normalise",
    [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm],
)
def test_filters_whose_weight_is_made_of_others(normalise: Callable[[nn.Module], object]) -> None:
    """Weight normalisation makes the weight that the network has anyway."""
    torch.manual_seed(1)
    plain, made = TwoLevels().eval(), TwoLevels()
    made.load_state_dict(plain.state_dict())
    for module in (made.first, made.down, made.again):
        normalise(module)
    made.eval()
    with torch.no_grad():
        for name in ("first", "down", "again"):
            getattr(plain, name).weight.copy_(getattr(made, name).weight)
    images = volumes(2, side=8)
    expected = TaskFeatures(plain, "")(images)
    np.testing.assert_allclose(TaskFeatures(made, "")(images), expected, rtol=1e-5, atol=1e-6)


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
    with pytest.raises(ValueError, match=r"Flatten has no 3D conv.*task_features=false"):
        TaskFeatures(nn.Flatten(), "")(volumes(1))
    for shape in ((0, 32, 32, 32), (32, 32, 32)):
        with pytest.raises(ValueError, match=r"expected \(B, D, H, W\), B >= 1"):
            TaskFeatures(segmenter("unet"), "")(np.zeros(shape))

"""MedicalNet's 3D ResNet-50 as its authors trained it (Chen et al., arXiv 1904.00625).

MONAI's `resnet50` has the same parameters but another geometry: MedicalNet's first convolution has
stride 2, and its layers 3 and 4 keep their resolution and dilate instead. The weights load strictly
into both, and features silently differ; the model here has MedicalNet's geometry.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from monai.networks.nets.resnet import resnet50
from numpy.typing import NDArray
from torch import Tensor, nn

from metrics.extractors.batches import chosen, in_batches
from metrics.extractors.checkpoints import load_strictly, read_checkpoint
from metrics.extractors.weights import HUB_FILE, find_weights

DIM = 2048

# MedicalNet calls voxels above 0 foreground. A generator's black is rarely exactly 0, so voxels up
# to one percent of the range count as background too.
FOREGROUND_THRESHOLD = 0.01

Preprocessing = Literal["foreground-zscore", "volume-zscore", "symmetric"]


class MedicalNetExtractor:
    """MedicalNet's 3D ResNet-50: the global average of its last feature map.

    Projects disagree on preprocessing, so it is named in every output. All forms are deterministic:

    - "foreground-zscore": zero mean and unit variance over voxels above `FOREGROUND_THRESHOLD`,
      0 elsewhere (MedicalNet's own, without its random background);
    - "volume-zscore": the same over all voxels;
    - "symmetric": [0, 1] stretched to [-1, 1], as HA-GAN's FID script feeds it.

    Args:
        weights: file of weights, see `load_medicalnet`.
        device: torch device, such as "cpu" or "cuda:0".
        preprocess: one of the above; "" is the first.
        batch_size: volumes on the device at once; it bounds memory and does not change features.
        sha256: expected checksum of the file, if any.
    """

    name = "medicalnet-resnet50"
    version = "1"  # raised with every change of the features
    protocol = "reorient"
    needs_weights = True
    preprocessings: tuple[str, ...] = ("foreground-zscore", "volume-zscore", "symmetric")
    find_weights = staticmethod(find_weights)
    dim = DIM

    def __init__(
        self,
        weights: str | Path | None,
        device: str = "cpu",
        preprocess: Preprocessing | Literal[""] = "",
        batch_size: int = 4,
        sha256: str | None = None,
    ) -> None:
        self.preprocess = chosen(preprocess, self.preprocessings)
        if weights is None:
            raise ValueError(f"{self.name} needs a file of weights; give MedicalNet's {HUB_FILE}.")
        network, self.sha256 = load_medicalnet(weights, sha256)
        self._network = network.to(device)
        self._device = device
        self._batch_size = batch_size

    def __call__(self, volumes: NDArray[Any]) -> NDArray[np.float32]:
        """Features ``(B, 2048)`` of volumes ``(B, D, H, W)`` in [0, 1], B >= 1."""
        if volumes.ndim != 4 or not len(volumes):
            raise ValueError(f"Volumes have shape {volumes.shape}; expected (B, D, H, W), B >= 1.")
        prepared = _PREPROCESSING[self.preprocess]
        return in_batches(
            lambda images: self._network(prepared(images)[:, None]),
            volumes,
            self._device,
            self._batch_size,
        )


def medicalnet_resnet50() -> nn.Module:
    """MedicalNet's ResNet-50, in evaluation mode and without gradients, randomly initialised.

    Maps ``(B, 1, D, H, W)`` to ``(B, 2048)``: the average over the last map, an eighth of the input
    a side.
    """
    network = resnet50(
        pretrained=False,
        spatial_dims=3,
        n_input_channels=1,
        feed_forward=False,
        shortcut_type="B",
        bias_downsample=False,
        conv1_t_stride=2,
    )
    for layer, dilation in ((network.layer3, 2), (network.layer4, 4)):
        for block in layer:
            block.conv2.stride = (1, 1, 1)
            block.conv2.dilation = block.conv2.padding = (dilation,) * 3
        layer[0].downsample[0].stride = (1, 1, 1)
    return cast(nn.Module, network.eval().requires_grad_(False))


def load_medicalnet(path: str | Path, sha256: str | None = None) -> tuple[nn.Module, str]:
    """The network with weights from a file, strictly: all 318 tensors and no other.

    Args:
        path: a checkpoint ``{"state_dict": {"module.<key>": tensor}}`` as published, or a plain
            dict of tensors; keys with or without "module.".
        sha256: refuse a file with another checksum.

    Returns:
        The network and the file's sha256.

    Raises:
        ValueError: a file that is missing, is no checkpoint, would run code, has another checksum,
            or is not of this network.
    """
    state, digest = read_checkpoint(path, "MedicalNet", f"MedicalNet's {HUB_FILE}", sha256)
    network = medicalnet_resnet50()
    load_strictly(network, state, f"'{path}' is not MedicalNet's ResNet-50", HUB_FILE)
    return network, digest


def _zscore(images: Tensor, mask: Tensor) -> Tensor:
    """Zero mean and unit standard deviation over each volume's mask ``(B, D, H, W)``, 0 outside."""
    spatial = (1, 2, 3)
    count = mask.sum(spatial, keepdim=True).clamp(min=1)
    centred = (images - (images * mask).sum(spatial, keepdim=True) / count) * mask
    deviation = (centred.square().sum(spatial, keepdim=True) / count).sqrt()
    # A flat volume is rounding errors after centring: 0, not those errors blown up.
    return torch.where(deviation > 1e-6, centred / deviation.clamp(min=1e-6), 0.0)


_PREPROCESSING: dict[str, Callable[[Tensor], Tensor]] = {
    "foreground-zscore": lambda images: _zscore(images, images > FOREGROUND_THRESHOLD),
    "volume-zscore": lambda images: _zscore(images, torch.ones_like(images)),
    "symmetric": lambda images: 2.0 * images - 1.0,
}

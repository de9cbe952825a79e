"""MedicalNet's 3D ResNet-50 as its authors trained it (Chen et al., arXiv 1904.00625).

MONAI's `resnet50` has the same parameters but another geometry: MedicalNet's first convolution has
stride 2, and its layers 3 and 4 keep their resolution and dilate instead. The weights load strictly
into both, and features silently differ; the model here has MedicalNet's geometry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from monai.networks.nets.resnet import resnet50
from numpy.typing import NDArray
from torch import Tensor, nn

from metrics.extractors.weights import HUB_FILE

DIM = 2048

# MedicalNet calls voxels above 0 foreground. A generator's black is rarely exactly 0, so voxels up
# to one percent of the range count as background too.
FOREGROUND_THRESHOLD = 0.01

Preprocessing = Literal["foreground-zscore", "volume-zscore", "symmetric"]


class MedicalNetExtractor:
    """Global average of MedicalNet's last feature map, an `metrics.extractors.Extractor`.

    Projects disagree on preprocessing, so it is named in every output. All forms are deterministic:

    - "foreground-zscore": zero mean and unit variance over voxels above `FOREGROUND_THRESHOLD`,
      0 elsewhere (MedicalNet's own, without its random background);
    - "volume-zscore": the same over all voxels;
    - "symmetric": [0, 1] stretched to [-1, 1], as HA-GAN's FID script feeds it.

    Args:
        path: file of weights, see `load_medicalnet`.
        device: torch device, such as "cpu" or "cuda:0".
        preprocess: one of the above.
        batch_size: volumes on the device at once; it bounds memory and does not change features.
        sha256: expected checksum of the file, if any.
    """

    name = "medicalnet-resnet50"
    version = "1"  # raised with every change of the features
    dim = DIM

    def __init__(
        self,
        path: str | Path,
        device: str = "cpu",
        preprocess: Preprocessing = "foreground-zscore",
        batch_size: int = 4,
        sha256: str | None = None,
    ) -> None:
        if preprocess not in _PREPROCESSING:
            raise ValueError(
                f"Preprocessing '{preprocess}' is unknown; use one of {', '.join(_PREPROCESSING)}."
            )
        self.preprocess = preprocess
        network, self.sha256 = load_medicalnet(path, sha256)
        self._network = network.to(device)
        self._device = torch.device(device)
        self._batch_size = batch_size

    @torch.inference_mode()
    def __call__(self, volumes: NDArray[Any]) -> NDArray[np.float32]:
        """Features ``(B, 2048)`` of volumes ``(B, D, H, W)`` in [0, 1].

        Computed in float32 with neither autocast nor TF32, whose rounding would depend on the GPU.
        """
        if volumes.ndim != 4:
            raise ValueError(f"Volumes have shape {volumes.shape}; expected (B, D, H, W).")
        features = np.empty((len(volumes), DIM), dtype=np.float32)
        with (
            torch.autocast(self._device.type, enabled=False),
            torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False),
        ):
            for start in range(0, len(volumes), self._batch_size):
                part = slice(start, start + self._batch_size)
                batch = np.ascontiguousarray(volumes[part], dtype=np.float32)
                images = _PREPROCESSING[self.preprocess](torch.from_numpy(batch).to(self._device))
                features[part] = self._network(images[:, None]).cpu().numpy()
        return features


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
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"The MedicalNet weights '{path}' do not exist; check the path.")
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if sha256 is not None and digest != sha256.lower():
        raise ValueError(
            f"The MedicalNet weights '{path}' have sha256 {digest}, expected {sha256}; "
            "download them again or mend the expected checksum."
        )
    weights = _read_weights(path)
    network = medicalnet_resnet50()
    _check_keys(path, network.state_dict(), weights)
    network.load_state_dict(weights, strict=True)
    return network, digest


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by key, without "module."; never runs code from the file."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise errors of almost any type
        raise ValueError(
            f"'{path}' is not a readable file of weights alone ({type(error).__name__}): damaged, "
            "or a pickle with code, which is never run; download it again."
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise ValueError(f"'{path}' holds no dict of tensors; give MedicalNet's {HUB_FILE}.")
    return {key.removeprefix("module."): value for key, value in content.items()}


def _check_keys(path: Path, expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Refuse weights of another network in one sentence, where torch would print 318 lines."""
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    wrong = [
        f"{key} is {tuple(found[key].shape)} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if key in found and found[key].shape != value.shape
    ]
    if missing or unexpected or wrong:
        raise ValueError(
            f"'{path}' is not MedicalNet's ResNet-50: {len(missing)} of {len(expected)} keys "
            f"missing{_first(missing)}, {len(unexpected)} unexpected{_first(unexpected)}, "
            f"{len(wrong)} of the wrong shape{_first(wrong)}; give {HUB_FILE}."
        )


def _first(items: list[str]) -> str:
    return f" (first: {items[0]})" if items else ""


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

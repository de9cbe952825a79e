"""A 2D ResNet-50 on every slice of a plane, with weights that the user brings (protocol "2.5d").

The network is torchvision's: He et al., arXiv 1512.03385, with the stride in the 3 x 3 convolution.
Two published files fit it: torchvision's own of ImageNet (`resnet50-11ad3fa6.pth` and its elder
`resnet50-0676ba61.pth`), and RadImageNet's `ResNet50.pt` (Mei et al., Radiology: AI 2022), whose
keys number the layers: "backbone.0" is conv1, "backbone.4" is layer1.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from monai.networks.nets.resnet import resnet50
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

from metrics.extractors.batches import chosen, in_batches
from metrics.extractors.checkpoints import load_strictly, read_checkpoint

DIM = 2048
FILE = "a ResNet-50 in torchvision's layout (ImageNet's or RadImageNet's)"
TRAINED_SIDE = 224

# Colour means and deviations of ImageNet, as torchvision's weights were trained with.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)

# RadImageNet's file holds the first nine children of torchvision's network as one sequence.
_RADIMAGENET = {
    "backbone.0.": "conv1.",
    "backbone.1.": "bn1.",
    "backbone.4.": "layer1.",
    "backbone.5.": "layer2.",
    "backbone.6.": "layer3.",
    "backbone.7.": "layer4.",
}


class ResNet2DExtractor:
    """A 2D ResNet-50 on slices, ImageNet's or RadImageNet's weights: protocol 2.5d.

    The grey slice is repeated to three channels. Published work disagrees on the rest, so it is
    named in every output:

    - "imagenet": ImageNet's colour means and deviations, as torchvision's weights were trained;
    - "symmetric": [0, 1] stretched to [-1, 1], as RadImageNet's were;
    - "imagenet-224", "symmetric-224": the same after bilinear resizing to 224 x 224, the size of
      both trainings; the others keep the slice's own size.

    Args:
        weights: file of weights, see `load_resnet2d`.
        device: torch device, such as "cpu" or "cuda:0".
        preprocess: one of the above; "" is the first.
        batch_size: slices on the device at once; it bounds memory and does not change features.
        sha256: expected checksum of the file, if any.
    """

    name = "resnet50-2d"
    version = "1"  # raised with every change of the features
    protocol = "2.5d"
    needs_weights = True
    preprocessings = ("imagenet", "symmetric", "imagenet-224", "symmetric-224")
    dim = DIM

    def __init__(
        self,
        weights: str | Path | None,
        device: str = "cpu",
        preprocess: str = "",
        batch_size: int = 16,
        sha256: str | None = None,
    ) -> None:
        self.preprocess = chosen(preprocess, self.preprocessings)
        if weights is None:
            raise ValueError(f"{self.name} needs a file of weights; give {FILE}.")
        network, self.sha256 = load_resnet2d(weights, sha256)
        self._network = network.to(device)
        self._device = device
        self._batch_size = batch_size

    def __call__(self, volumes: NDArray[Any]) -> NDArray[np.float32]:
        """Features ``(B, 2048)`` of slices ``(B, H, W)`` in [0, 1], B >= 1.

        Raises:
            ValueError: no slices, or not three axes.
        """
        if volumes.ndim != 3 or not len(volumes):
            raise ValueError(f"Slices have shape {volumes.shape}; expected (B, H, W), B >= 1.")
        return in_batches(
            lambda slices: self._network(self._prepared(slices)),
            volumes,
            self._device,
            self._batch_size,
        )

    def _prepared(self, slices: Tensor) -> Tensor:
        """What the network is fed, ``(B, 3, H, W)``, of slices ``(B, H, W)``."""
        kind, _, resized = self.preprocess.partition("-")
        images = slices[:, None].expand(-1, 3, -1, -1)
        if resized:
            side = (TRAINED_SIDE, TRAINED_SIDE)
            images = interpolate(images, side, mode="bilinear", antialias=True)
        return _SCALING[kind](images)


def torchvision_resnet50() -> nn.Module:
    """torchvision's ResNet-50 without its classifier, in evaluation mode, randomly initialised.

    Maps ``(B, 3, H, W)`` to ``(B, 2048)``, the average over the last map.
    """
    network = resnet50(
        pretrained=False,
        spatial_dims=2,
        n_input_channels=3,
        feed_forward=False,
        shortcut_type="B",
        bias_downsample=False,
        conv1_t_stride=2,
    )
    return cast(nn.Module, network.eval().requires_grad_(False))


def load_resnet2d(path: str | Path, sha256: str | None = None) -> tuple[nn.Module, str]:
    """The network with weights from a file, strictly, and the file's sha256.

    Args:
        path: torchvision's keys or RadImageNet's, plain or under "state_dict", with or without
            "module.". A classifier ("fc.") is left out: features come from before it. Files older
            than torch 0.4.1 lack the counters of their batch norms, which evaluation never reads.
        sha256: refuse a file with another checksum.

    Raises:
        ValueError: a file that is missing, is no checkpoint, would run code, has another checksum,
            or is not of this network.
    """
    state, digest = read_checkpoint(path, "ResNet-50", FILE, sha256)
    state = {_torchvision_key(key): value for key, value in state.items()}
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    network = torchvision_resnet50()
    counters = [key for key in network.state_dict() if key.endswith("num_batches_tracked")]
    load_strictly(network, state, f"'{path}' is no 2D ResNet-50 of torchvision", FILE, counters)
    return network, digest


def _torchvision_key(key: str) -> str:
    for theirs, ours in _RADIMAGENET.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key


def _imagenet(images: Tensor) -> Tensor:
    mean, deviation = (images.new_tensor(v)[:, None, None] for v in (_MEAN, _DEVIATION))
    return (images - mean) / deviation


_SCALING: dict[str, Callable[[Tensor], Tensor]] = {
    "imagenet": _imagenet,
    "symmetric": lambda images: 2.0 * images - 1.0,
}

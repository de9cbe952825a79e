"""Terms of an image autoencoder's loss beside L1: differences of neighbours, deep features."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import InputError
from bench.generator import Frozen

LAYERS = ("layer1", "layer2", "layer3", "layer4")
FLAT = 0.01  # smaller standard deviations of a volume in [-1, 1] are not blown up


class PerceptualConfig(Frozen):
    """Distance of MedicalNet's features; its weights must be on this machine."""

    weight: float = Field(0.0, ge=0, description="weight of the perceptual term; 0 is off")
    sha256: str | None = Field(
        None,
        description="checksum of MedicalNet's file of weights; another file is refused, null takes "
        "any of the right form",
    )


class PerceptualLoss(nn.Module):
    """Distance of deep features (Zhang et al., arXiv 1801.03924), without learned weights.

    The features of MedicalNet's ResNet-50 after each of its four layers, at unit length over the
    channels of a voxel; the squared distance, mean over voxels, then over layers. Both images are
    normalised by the mean and standard deviation of the true one, so that a wrong brightness is
    seen. The network is frozen; gradients flow through it to the reconstruction.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        """Mean distance of reconstructions y and images x, (B, 1, D, H, W) in about [-1, 1]."""
        mean = x.mean(dim=(1, 2, 3, 4), keepdim=True)
        deviation = x.std(dim=(1, 2, 3, 4), keepdim=True).clamp(min=FLAT)
        with torch.no_grad():
            true = self._features((x - mean) / deviation)
        found = self._features((y - mean) / deviation)
        distances = [(a - b).square().sum(1).mean() for a, b in zip(found, true, strict=True)]
        return torch.stack(distances).mean()

    def _features(self, x: Tensor) -> list[Tensor]:
        features = []
        for name, module in self.network.named_children():
            x = module(x)
            if name in LAYERS:
                features.append(F.normalize(x.float(), dim=1))
            if name == LAYERS[-1]:
                break
        return features


def load_perceptual(config: PerceptualConfig, where: str) -> PerceptualLoss | None:
    """The perceptual term, None where it is off; it never reaches for a network.

    InputError if MedicalNet's weights are not on this machine, or are others than asked for.
    """
    if not config.weight:
        return None
    from metrics.extractors.medicalnet import load_medicalnet
    from metrics.extractors.weights import HUB_FILE, WEIGHTS_VARIABLE, find_weights

    try:
        path = find_weights()
        if path is None:
            raise ValueError(
                f"MedicalNet's weights are not on this machine; set {WEIGHTS_VARIABLE} to the path "
                f"of {HUB_FILE}, or set the weight to 0 and use gradient_weight, which needs none."
            )
        network, _ = load_medicalnet(path, config.sha256)
    except ValueError as error:
        raise InputError(f"{where}.perceptual.weight is {config.weight}: {error}") from error
    return PerceptualLoss(network)


def gradient_difference(y: Tensor, x: Tensor) -> Tensor:
    """L1 of the differences of neighbouring voxels (as in Mathieu et al., arXiv 1511.05440).

    |Δy − Δx| along each of the three axes of (B, C, D, H, W), the mean of the three means: a blur
    costs it more than it costs L1.
    """
    terms = [(y.diff(dim=axis) - x.diff(dim=axis)).abs().mean() for axis in (2, 3, 4)]
    return torch.stack(terms).mean()

"""Joint mode: an image and its label map are generated together, as channels of one volume.

After Subramaniam et al., "Generating 3D TOF-MRA volumes and segmentation labels using generative
adversarial networks", Medical Image Analysis 78, 2022, with one channel for each class instead of
one for a single structure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from bench.errors import InputError
from bench.volumes import Sample
from generators.data import from_logits, images, label_ids, one_hot, to_unit_range

if TYPE_CHECKING:
    from bench.volumes import VolumeSet

Labels = Literal["none", "joint"]


@dataclass(frozen=True)
class Channels:
    """The channels of a generated volume: the image, then one for each of the label values `ids`.

    All are in [-1, 1]; a class's channel is 1 where the voxel is of that class and -1 elsewhere.
    Without `ids` the image stands alone.
    """

    ids: tuple[int, ...] = ()

    @classmethod
    def of(cls, labels: Labels, label_names: Mapping[int, str]) -> Channels:
        """The channels of a model whose option `labels` is given."""
        return cls(label_ids(label_names) if labels == "joint" else ())

    @property
    def count(self) -> int:
        return 1 + len(self.ids)

    def batch(self, volumes: VolumeSet, indices: Sequence[int], device: torch.device) -> Tensor:
        """The named cases as (B, count, D, H, W) float32."""
        x = images(volumes, indices, device)
        if not self.ids:
            return x
        return torch.cat([x, 2 * one_hot(volumes.labels(indices), self.ids, device) - 1], dim=1)

    def samples(self, x: Tensor) -> Iterator[Sample]:
        """Generated volumes (B, count, D, H, W), each voxel labelled by its largest channel."""
        maps = from_logits(x[:, 1:], self.ids) if self.ids else [None] * len(x)
        for image, label in zip(to_unit_range(x[:, :1]), maps, strict=True):
            yield Sample(image, label)


def check_joint(name: str, labels: Labels, label_names: Mapping[int, str]) -> None:
    """InputError if labels are to be generated of data that have no labelled structures."""
    if labels == "joint" and len(label_ids(label_names)) < 2:
        raise InputError(
            f"Generator {name} with labels: joint needs labelled structures, the data have "
            f"{dict(label_names)}; label the data or set labels: none."
        )

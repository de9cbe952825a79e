"""Cleaning of generated label maps: floating pieces and specks that no patient has."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from bench.errors import InputError
from bench.generator import Frozen

Label = NDArray[np.uint8]
TOUCHING = np.ones((3, 3, 3), dtype=bool)  # voxels that share a face, an edge or a corner


class CleaningConfig(Frozen):
    """Rules for generated label maps; part of no fit."""

    organ: str | None = Field(
        None,
        description="label that holds the other structures, such as liver: pieces that do not "
        "touch its largest part are dropped; none where the data have no such label",
    )
    min_voxels: int = Field(
        8, ge=1, description="smaller pieces of a structure are dropped; 1 keeps all"
    )


def check_cleaning(config: CleaningConfig, label_names: Mapping[int, str]) -> None:
    """InputError if the organ is not among the data's labels."""
    if config.organ is not None and config.organ not in label_names.values():
        raise InputError(
            f"cleaning.organ is {config.organ!r}, which is not among the labels "
            f"{sorted(label_names.values())}; name one of them or leave it out."
        )


def clean(label: Label, label_names: Mapping[int, str], config: CleaningConfig) -> Label:
    """`label` (D, H, W) without floating pieces and specks.

    1. With an organ: of the connected foreground, only the piece with most organ voxels stays; the
       rest becomes background.
    2. Pieces of one structure with fewer than `min_voxels` voxels take the value of the nearest
       voxel that stays, so that a speck inside the organ becomes organ.
    """
    cleaned = label.copy()
    if config.organ is not None:
        value = next(v for v, name in label_names.items() if name == config.organ)
        cleaned[~_around_organ(cleaned, value)] = 0
    specks = _specks(cleaned, config.min_voxels)
    if specks.any():
        nearest = ndimage.distance_transform_edt(
            specks, return_distances=False, return_indices=True
        )
        cleaned = cleaned[tuple(nearest)]
    return cleaned


def _around_organ(label: Label, organ: int) -> NDArray[np.bool_]:
    pieces, _ = ndimage.label(label > 0, structure=TOUCHING)
    held = np.bincount(pieces[label == organ], minlength=1)
    if held.sum() == 0:  # nothing to hold on to: every piece is as good as another
        return np.ones(label.shape, dtype=bool)
    return np.asarray(pieces == held.argmax())


def _specks(label: Label, min_voxels: int) -> NDArray[np.bool_]:
    specks = np.zeros(label.shape, dtype=bool)
    for value in np.unique(label[label > 0]):
        pieces, _ = ndimage.label(label == value, structure=TOUCHING)
        small = np.bincount(pieces.ravel()) < min_voxels
        small[0] = False
        specks |= small[pieces]
    return specks

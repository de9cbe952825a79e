"""Cleaning of generated label maps by stated rules, and which draws break them for good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import ndimage

from bench.datasets.tasks import kind_of
from bench.errors import InputError, nearest
from bench.generator import Frozen

Label = NDArray[np.uint8]
AUTO = "auto"
TOUCHING = np.ones((3, 3, 3), dtype=bool)  # voxels that share a face, an edge or a corner


class CleaningConfig(Frozen):
    """Rules for generated label maps; part of no fit."""

    organ: str | None = Field(
        AUTO,
        description="label that holds other structures; it is one piece and they lie inside it. "
        f"{AUTO}: the label named liver where the data have one; null: no such rule",
    )
    inside: tuple[str, ...] | None = Field(
        None,
        description="labels that lie inside the organ; null: those whose names tell a vessel or a "
        "lesion (portal vein, HCC), so that kidneys beside a liver stay",
    )
    reach: float = Field(
        0.0625,
        ge=0,
        description="how far from the organ a structure still is inside it, as a share of the "
        "grid's shortest side: vessels enter, lesions bulge",
    )
    min_voxels: int = Field(
        8, ge=1, description="smaller pieces of a structure are dropped; 1 keeps all"
    )
    required: tuple[str, ...] = Field(
        (), description="labels that every map must have after cleaning; the organ always is one"
    )
    max_changed: float = Field(
        0.5, ge=0, le=1, description="share of a map's labelled voxels that cleaning may change"
    )
    max_draws: int = Field(
        10,
        ge=1,
        description="draws for one volume at most; where all are rejected, the least bad is kept",
    )


@dataclass(frozen=True)
class Rules:
    """The configuration in the values of the data's labels."""

    organ: int | None
    inside: tuple[int, ...]
    required: tuple[int, ...]


class Cleaned(NamedTuple):
    """A cleaned label map and what speaks against it."""

    label: Label
    changed: float  # share of the drawn map's labelled voxels that cleaning changed
    faults: tuple[str, ...]  # the broken rules; a map with one is rejected

    @property
    def badness(self) -> tuple[int, float]:
        """Smaller is better."""
        return len(self.faults), self.changed


def rules_of(config: CleaningConfig, label_names: Mapping[int, str]) -> Rules:
    """What the rules are for data of these labels; InputError if they name another one."""
    ids = {name: value for value, name in label_names.items() if value != 0}
    for where, names in (
        ("organ", () if config.organ in (None, AUTO) else (str(config.organ),)),
        ("inside", config.inside or ()),
        ("required", config.required),
    ):
        for name in names:
            if name not in ids:
                raise InputError(
                    f"cleaning.{where} is {name!r}, which is not among the labels of the data: "
                    f"{nearest(name, sorted(ids))}"
                )
    organ = next((v for n, v in ids.items() if n.lower() == "liver"), None)
    if config.organ != AUTO:
        organ = None if config.organ is None else ids[config.organ]
    inside = config.inside
    if inside is None:
        inside = tuple(name for name in ids if kind_of(name) != "organ")
    return Rules(
        organ,
        () if organ is None else tuple(ids[name] for name in inside if ids[name] != organ),
        tuple(ids[name] for name in config.required),
    )


def judge(drawn: Label, label_names: Mapping[int, str], config: CleaningConfig) -> Cleaned:
    """`drawn` (D, H, W) cleaned, and the reasons to reject it.

    A map is rejected that has no label left, lacks the organ or a required label, or of which
    cleaning changed more than `max_changed`: such a map was no anatomy to begin with.
    """
    rules = rules_of(config, label_names)
    cleaned = clean(drawn, label_names, config)
    changed = float(np.mean((drawn != cleaned)[drawn > 0])) if drawn.any() else 0.0
    found = set(np.unique(cleaned).tolist())
    wanted = {*rules.required, *([] if rules.organ is None else [rules.organ])}
    faults = [f"no {label_names[value]}" for value in sorted(wanted - found)]
    if not cleaned.any():
        faults.append("no label at all")
    if changed > config.max_changed:
        faults.append(f"cleaning changed {changed:.0%} of it")
    return Cleaned(cleaned, changed, tuple(faults))


def clean(label: Label, label_names: Mapping[int, str], config: CleaningConfig) -> Label:
    """`label` (D, H, W) with every structure inside its organ and without specks.

    With an organ, and where the map has some of it:
    1. of the organ and what belongs inside, only the connected piece with most organ voxels stays;
    2. what belongs inside and lies further than `reach` from the organ, its holes filled, becomes
       background.
    Always: 3. pieces of one structure with fewer than `min_voxels` voxels take the value of the
    nearest voxel that stays, so that a speck inside the organ becomes organ.

    The rules are repeated until they change nothing: a cleaned map is clean. That ends, since no
    rule labels background, 2 takes labels away, and what 3 keeps only grows.
    """
    rules = rules_of(config, label_names)
    cleaned, before = label.copy(), None
    while before is None or not np.array_equal(before, cleaned):
        before = cleaned.copy()
        cleaned[_outside(cleaned, rules, config.reach)] = 0
        cleaned = _without_specks(cleaned, config.min_voxels)
    return cleaned


def _outside(label: Label, rules: Rules, reach: float) -> NDArray[np.bool_]:
    """Voxels of the organ and of what belongs inside it that rules 1 and 2 drop."""
    organ = label == rules.organ
    if rules.organ is None or not organ.any():  # nothing that could hold anything
        return np.zeros(label.shape, dtype=bool)
    bound = organ | np.isin(label, rules.inside)
    pieces, _ = ndimage.label(bound, structure=TOUCHING)
    main = pieces == np.bincount(pieces[organ]).argmax()
    body = ndimage.binary_fill_holes(organ & main)
    far = ndimage.distance_transform_edt(~body) > reach * min(label.shape)
    return np.asarray(bound & ~(main & (organ | ~far)))


def _without_specks(label: Label, min_voxels: int) -> Label:
    specks = np.zeros(label.shape, dtype=bool)
    for value in np.unique(label[label > 0]):
        pieces, _ = ndimage.label(label == value, structure=TOUCHING)
        small = np.bincount(pieces.ravel()) < min_voxels
        small[0] = False
        specks |= small[pieces]
    if specks.all():
        return np.zeros_like(label)
    if not specks.any():
        return label
    nearest_kept = ndimage.distance_transform_edt(
        specks, return_distances=False, return_indices=True
    )
    filled: Label = label[tuple(nearest_kept)]
    return filled

"""Fresh cases of a data set that can make more of them: phantoms that no split holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.datasets.config import PHANTOM, DataConfig
from bench.datasets.labels import merge_names
from bench.datasets.source import open_source
from bench.errors import InputError

if TYPE_CHECKING:
    from bench.volumes import Sample, VolumeSet


def is_phantom(volumes: VolumeSet) -> bool:
    """Whether the set was prepared from the built-in phantom."""
    return bool(volumes.provenance.get("config", {}).get("source") == PHANTOM)


def fresh_phantom(volumes: VolumeSet, number: int) -> Sample:
    """Phantom `number` (from 0) of those beyond the cases that `volumes` was prepared from.

    Drawn on the set's grid with the data's seed and labels merged as in the set, so that it comes
    from the same distribution as the prepared cases and is none of them, in no split.

    Args:
        volumes: any of the prepared sets; its provenance says how it was made.
        number: counts the fresh cases; one and the same case for one number.

    Returns:
        Sample: image (D, H, W) float32 in [0, 1] and label (D, H, W) uint8.

    Raises:
        InputError: the set was not prepared from the phantom.
    """
    from bench.datasets.phantom import LABEL_NAMES, phantom_case
    from bench.volumes import Sample

    if not is_phantom(volumes):
        raise InputError(
            f"Fresh cases of {volumes.provenance.get('source', 'this data set')} cannot be drawn: "
            "only the phantom can be asked for more; hold real cases out by data.holdout."
        )
    config = DataConfig.model_validate(volumes.provenance["config"])
    prepared = len(open_source(config).ids)  # with the indices 0, 1, ...
    case = phantom_case(prepared + number, config.seed, config.grid)
    _, merge = merge_names({**LABEL_NAMES, **(config.labels or {})})
    return Sample(case.image, merge[case.label])

"""The published tables of 3D-LLDM (arXiv 2603.23845), as printed there.

They were measured on 720 hepatobiliary-phase MR scans that are not public, with a choice of
MedicalNet weights the paper does not name: a reference for the form and the arithmetic of the
tables, and not a number to compare one's own with.
"""

from __future__ import annotations

import pandas as pd

from leaderboard.model import PLANES

SOURCE = "3D-LLDM, arXiv 2603.23845"
GENERATOR = "3d-lldm"  # the only generator the paper gives R+S for
TASKS = ("Liver", "Vein", "HCC", "Multi-class")

_FID = {
    "ha-gan": (96.32, 98.07, 97.75, 97.38),
    "3d-ddpm": (79.53, 78.16, 76.07, 77.92),
    "ldm-vqvae": (67.17, 63.43, 62.96, 64.52),
    "ldm-vae": (40.69, 37.34, 37.83, 38.62),
    "3d-lldm": (29.27, 27.62, 28.04, 28.31),
}

# Per task of TASKS the mean Dice of R and of R+S.
_DICE = {
    "unet": ((0.9650, 0.9662), (0.7905, 0.8667), (0.7334, 0.8152), (0.6968, 0.7014)),
    "resunet": ((0.9633, 0.9634), (0.7197, 0.7902), (0.7108, 0.7646), (0.6601, 0.6652)),
    "wideresunet": ((0.9657, 0.9661), (0.7230, 0.7989), (0.7251, 0.7857), (0.6961, 0.7020)),
    "dynunet": ((0.9541, 0.9736), (0.6958, 0.7540), (0.7002, 0.7674), (0.6983, 0.7340)),
    "vnet": ((0.9289, 0.9677), (0.6908, 0.7212), (0.6350, 0.6825), (0.5584, 0.5937)),
}
_OVERALL = ((0.9544, 0.9674), (0.7240, 0.7862), (0.7009, 0.7631), (0.6619, 0.6793))

MISPRINT = (
    "The paper prints 0.9544 (+1.362 %) as the overall mean of R for Liver; the mean of that "
    "column is 0.9554 (+1.256 %)."
)


def table1() -> pd.DataFrame:
    """FID per plane (lower is better): columns ``generator`` and ``fid_<plane>``."""
    return pd.DataFrame(
        [(generator, *fids) for generator, fids in _FID.items()],
        columns=["generator", *(f"fid_{plane}" for plane in PLANES)],
    )


def table2() -> pd.DataFrame:
    """Mean Dice in [0, 1] of R and R+S, S by 3D-LLDM: ``segmenter, task, dice_r, dice_rs``."""
    return pd.DataFrame(
        [
            (segmenter, task, r, rs)
            for segmenter, pairs in _DICE.items()
            for task, (r, rs) in zip(TASKS, pairs, strict=True)
        ],
        columns=["segmenter", "task", "dice_r", "dice_rs"],
    )


def table2_overall() -> pd.DataFrame:
    """The printed row "Overall mean", its `MISPRINT` included: ``task, dice_r, dice_rs``."""
    return pd.DataFrame(
        [(task, r, rs) for task, (r, rs) in zip(TASKS, _OVERALL, strict=True)],
        columns=["task", "dice_r", "dice_rs"],
    )

"""The names under which built-in plug-ins are printed, and which of them are controls."""

from __future__ import annotations

import hashlib
import re

from leaderboard.model import REAL, RunInfo
from leaderboard.text import one_line

CONTROLS = frozenset(
    {
        *("oracle", "copycat", "average", "scramble", "mislabelled"),
        *("blur-0.5", "blur-1", "blur-2", "noise-0.02", "noise-0.1", "pure-noise"),
    }
)
"""Built-in generators of known quality: they test the harness and compete with nobody."""

_DISPLAY_NAMES = {
    REAL: "real training volumes (floor)",
    "ha-gan": "HA-GAN",
    "3d-ddpm": "3D-DDPM",
    "ldm-vqvae": "3D-LDM with VQVAE",
    "ldm-vae": "3D-LDM with VAE",
    "3d-lldm": "3D-LLDM",
    "unet": "U-Net",
    "resunet": "ResUNet",
    "wideresunet": "WideResUNet",
    "dynunet": "DynUNet",
    "vnet": "VNet",
}


def controls_of(info: RunInfo) -> frozenset[str]:
    """The controls of a run: the built-in ones and those that it names itself."""
    return CONTROLS | frozenset(info.controls)


def display_name(name: str) -> str:
    """The name in the literature of a built-in plug-in; any other plug-in's own name, as it is."""
    return _DISPLAY_NAMES.get(name, name)


def shown_name(name: str) -> str:
    """`display_name` on one line."""
    return one_line(display_name(name))


def file_name(name: str) -> str:
    """A plug-in's name as part of a file's; two names never give the same one."""
    slug = re.sub(r"[^a-zA-Z0-9.-]+", "-", name)
    return slug if slug == name else f"{slug}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"

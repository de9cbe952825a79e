"""Presets: YAML files beside this one. A preset sets configuration only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.errors import InputError, nearest

FOLDER = Path(__file__).parent
ORDER = ("quick", "small", "paper")


def preset_names() -> list[str]:
    """Names of the presets, the quickest first."""
    return sorted((path.stem for path in FOLDER.glob("*.yaml")), key=ORDER.index)


def read_preset(name: str) -> dict[str, Any]:
    """A preset's values; InputError with the nearest names if there is none."""
    from bench import own_yaml

    if name not in preset_names():
        raise InputError(f"There is no preset {name!r}: {nearest(name, preset_names())}")
    values = own_yaml.parse((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    values.pop("shared", None)  # YAML anchors that several plug-ins refer to
    return {**values, "preset": name}

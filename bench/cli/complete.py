"""What the shell completes: names of plug-ins and presets, found without importing any."""

from __future__ import annotations

from bench.errors import InputError


def preset_names(incomplete: str) -> list[str]:
    """Presets."""
    from bench.presets import preset_names as names

    return [name for name in names() if name.startswith(incomplete)]


def plugin_names(incomplete: str) -> list[str]:
    """Every installed plug-in."""
    every = [*_names("generators"), *_names("segmenters"), *_names("extractors")]
    return [name for name in every if name.startswith(incomplete)]


def generator_names(incomplete: str) -> list[str]:
    """Installed generators, after a comma as well."""
    return _last_of_several(incomplete, ["all", "none", "controls", *_names("generators")])


def segmenter_names(incomplete: str) -> list[str]:
    """Installed segmenters, after a comma as well."""
    return _last_of_several(incomplete, ["all", "none", *_names("segmenters")])


def _names(kind: str) -> list[str]:
    from bench.registry import EXTRACTORS, GENERATORS, SEGMENTERS

    registries = {"generators": GENERATORS, "segmenters": SEGMENTERS, "extractors": EXTRACTORS}
    try:
        return [*registries[kind].names(), *registries[kind].control_names()]
    except InputError:  # a name that two claim: the command itself will say so
        return []


def _last_of_several(incomplete: str, known: list[str]) -> list[str]:
    head, comma, last = incomplete.rpartition(",")
    return [f"{head}{comma}{name}" for name in known if name.startswith(last)]

"""Every hyper-parameter of the generators in each preset, as the tables of docs/generators.md.

    python docs/hyperparameters.py

rewrites the tables between the markers of that page; they are read from the presets and the
plug-ins' defaults, so none is typed by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.config import plugin_config
from bench.presets import preset_names, read_preset
from bench.registry import GENERATORS

PAGE = Path(__file__).with_name("generators.md")
BLOCK = re.compile(r"(<!-- hyper-parameters: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def tables(page: str) -> str:
    """`page` with every table between its markers made anew."""
    return BLOCK.sub(lambda m: f"{m[1]}{table(m[2])}{m[3]}", page)


def table(generator: str) -> str:
    """Rows of key and value in each preset; a key whose value is the same in all is one cell."""
    presets = preset_names()
    values = {name: dict(flat(resolved(name, generator))) for name in presets}
    lines = [
        f"| key | {' | '.join(presets)} |",
        f"| --- |{' ---: |' * len(presets)}",
        *(
            f"| `{key}` | {' | '.join(shown(values[name].get(key, '–')) for name in presets)} |"
            for key in dict.fromkeys(key for each in values.values() for key in each)
        ),
    ]
    return "\n".join(lines) + "\n"


def resolved(preset: str, generator: str) -> dict[str, Any]:
    """The full configuration of a generator in a preset, defaults included."""
    given = read_preset(preset).get("generators", {}).get(generator, {})
    return plugin_config(GENERATORS, generator, given, "generators")


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(a.b.c, value) of nested mappings."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, list | tuple):
        return " ".join(shown(part) for part in value) or "–"
    if isinstance(value, Mapping):
        return "–"
    return f"{value:g}" if isinstance(value, int | float) else str(value) or "–"


if __name__ == "__main__":
    PAGE.write_text(tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

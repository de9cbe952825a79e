"""YAML files that come with the package: many are read to list what there is."""

from __future__ import annotations

from typing import Any

import yaml


def parse(text: str) -> dict[str, Any]:
    """The mapping that such a text holds, by libyaml where PyYAML has it: ten times sooner.

    The safe loader either way, as `yaml.safe_load`: plain values, nothing that runs.
    """
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
    try:
        values: dict[str, Any] = loader.get_single_data()
    finally:
        loader.dispose()
    return values

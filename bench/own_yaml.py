"""YAML files that come with the package: many are read to list what there is."""

from __future__ import annotations

from typing import Any

import yaml


def parse(text: str) -> dict[str, Any]:
    """The mapping that such a text holds, by libyaml where PyYAML has it: ten times sooner."""
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    values: dict[str, Any] = yaml.load(text, Loader=loader)
    return values

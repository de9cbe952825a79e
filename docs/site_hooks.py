"""What the build of the site adds: generated references, formulas, the list of decisions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import reference_pages
from latex2mathml.converter import convert

GENERATED = {
    "<!-- reference: commands -->": reference_pages.commands,
    "<!-- reference: configuration -->": reference_pages.configuration,
}
_FORMULA = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_OUTSIDE = re.compile(
    r"<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)=\"?(?:https?:)?//[^>]*>"
)


def on_config(config: Any) -> Any:
    """Every decision record is in the navigation, in the order of their numbers."""
    names = sorted(path.name for path in Path(config.docs_dir, "adr").glob("*.md"))
    (decisions,) = (entry for entry in config.nav if "Decisions" in entry)
    decisions["Decisions"] = [f"adr/{name}" for name in names]
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Generated text for its markers; MathML, which browsers draw by themselves, for formulas."""
    for marker, text in GENERATED.items():
        if marker in markdown:
            markdown = markdown.replace(marker, text())
    return _FORMULA.sub(
        lambda m: f'<div class="formula">{convert(m[1], display="block")}</div>', markdown
    )


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """The pages open from disk without a network: nothing that they load may lie elsewhere."""
    if found := _OUTSIDE.search(output):
        raise ValueError(f"{page.file.src_uri} loads {found[0]}, which is not part of the site.")
    return output

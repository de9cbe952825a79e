"""Whether what a run left is whole, and was made in one way: what `bench validate` tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from bench.plan import Cell
from bench.store import Damaged, Store

ALIKE = (
    *("python", "voxelbench", "torch", "monai", "numpy", "lightning-fabric"),
    *("device", "precision", "memory_format", "threads"),
)
"""Facts of a cell's environment that change its numbers; its host does not."""


def damaged_cells(store: Store, cells: Sequence[Cell]) -> Iterator[tuple[Cell, str]]:
    """Every cell that is not whole, with what is wrong; every byte of its artefacts is read."""
    for cell in cells:
        try:
            if store.standing(cell.key).status in ("done", "damaged"):
                store.cell(cell.key)
                store.verify(cell.key, anew=True)
        except Damaged as error:
            yield cell, str(error)


def mixtures(store: Store, cells: Sequence[Cell]) -> list[str]:
    """A sentence for every fact in which the finished cells of one table differ.

    One table is what cells of one kind make: the fits, the scores, the segmentations.
    """
    found: dict[tuple[str, str], Counter[str]] = {}
    for cell in cells:
        result = store.result(cell.key)
        if result is None:
            continue
        for name in ALIKE:
            value = str(result["environment"].get(name, "unknown"))
            found.setdefault((cell.kind, name), Counter())[value] += 1
        used = {(r.get("extractor", ""), r.get("extractor_sha256", "")) for r in result["records"]}
        for extractor, weights in used - {("", "")}:
            value = f"{extractor} {weights[:16]}".strip()
            found.setdefault((cell.kind, "extractor"), Counter())[value] += 1
    return [
        f"The {kind} cells mix {name}: "
        + ", ".join(f"{value} ({count} cells)" for value, count in counts.most_common())
        + "."
        for (kind, name), counts in found.items()
        if len(counts) > 1
    ]

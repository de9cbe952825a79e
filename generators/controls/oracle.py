"""Controls that are real volumes: with their own labels, and with another case's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bench.generator import register_generator
from bench.volumes import Sample
from generators.controls.draws import Control, fresh_draw

if TYPE_CHECKING:
    from bench.run import Run


@register_generator("oracle", control=True)
class Oracle(Control):
    """Fresh real cases with their labels; nothing can be better."""

    needs_held = True

    def sample(self, indices: Sequence[int], run: Run) -> Iterator[Sample]:
        for i in indices:
            yield fresh_draw(i, run)


@register_generator("mislabelled", control=True)
class Mislabelled(Control):
    """The oracle's images, each with the label of the oracle's next case."""

    needs_held = True

    def sample(self, indices: Sequence[int], run: Run) -> Iterator[Sample]:
        ahead: dict[int, Sample] = {}  # the next case is mostly the next image too
        for i in indices:
            this = ahead.get(i) or fresh_draw(i, run)
            ahead = {i + 1: fresh_draw(i + 1, run)}
            yield Sample(this.image, ahead[i + 1].label)

"""What a cell is given when it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.datasets.split import guard_sets
from bench.device import Device
from bench.errors import Interrupted
from bench.plan import Cell
from bench.ranks import ALONE, Ranks
from bench.store import Store
from bench.volumes import VolumeSet

if TYPE_CHECKING:
    from bench.run import Progress, Run


@dataclass(frozen=True)
class Context:
    """A cell, the folder for its artefacts, and the way to what it needs."""

    cell: Cell
    store: Store
    artefacts: Path
    device: Device
    progress: Progress
    stop_requested: Callable[[], bool]
    ranks: Ranks = ALONE  # where several devices train this cell together

    @property
    def spec(self) -> Mapping[str, Any]:
        return self.cell.spec

    def needed(self, role: str) -> Path:
        """Folder of the artefacts of the cell that plays `role`; Damaged if they are not whole."""
        key = self.cell.needs[role]
        self.store.verify(key)
        return self.store.artefacts(key)

    def volumes(self, part: str) -> VolumeSet:
        """The prepared volume set "train", "val", "test" or, where cases were held out, "held"."""
        return VolumeSet.open(self.needed("data") / part)

    def synthetic(self) -> VolumeSet:
        """The synthetic set this cell needs, with its pseudo labels where it has those."""
        volumes = VolumeSet.open(self.needed("synthetic") / "synthetic")
        if "labels" in self.cell.needs:
            return volumes.with_labels(self.needed("labels") / "labels.npy")
        return volumes

    def tick(self, step: int, total: int) -> None:
        """Tell the progress of work without a training loop; Interrupted if the run is to stop."""
        self.progress(step, total, {})
        if self.stop_requested():
            raise Interrupted(f"Stopped after {step} of {total}; run again to redo this cell.")

    def _visible(self, held: bool) -> dict[str, VolumeSet]:
        """The real cases that a plug-in may see; ValueError if val or test cases are among them."""
        if "data" not in self.cell.needs:
            return {}
        sets = {"train": self.volumes("train")}
        if held and (self.needed("data") / "held").is_dir():
            sets["held"] = self.volumes("held")
        guard_sets(val=self.volumes("val"), test=self.volumes("test"), **sets)
        return sets

    def run(self, volumes: VolumeSet, held: bool = False) -> Run:
        """The Run that a plug-in gets, with the states of the stages this cell needs.

        `held`: whether it may see the cases held out for generators that declare `needs_held`.
        Global random states are set too: a plug-in that draws from them must not depend on what
        this process did before.
        """
        from bench.run import Run, seed_globals

        seed = int(self.spec["seed"])
        seed_globals(seed)
        states = {
            role.removeprefix("stage:"): self.needed(role) / "state.pt"
            for role in self.cell.needs
            if role.startswith("stage:")
        }
        return Run(
            seed=seed,
            folder=self.store.work(self.cell.key) if self.ranks.leads else self.artefacts,
            grid=volumes.grid,
            label_names=volumes.label_names,
            device_setting=self.device,
            states=states,
            progress=self.progress,
            stop_requested=self.stop_requested,
            sets=self._visible(held),
            ranks=self.ranks,
        )

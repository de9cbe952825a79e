"""How alike the volumes of one set are: MS-SSIM within synthetic volumes, and within real ones."""

from __future__ import annotations

import numpy as np

from bench.cells.context import Context
from bench.cells.measure import measured
from bench.records import Record
from metrics.ms_ssim import ms_ssim_diversity


def run(context: Context) -> list[Record]:
    """Records the mean MS-SSIM of pairs; of the test volumes where the set is the real one."""
    count, pairs = int(context.spec["count"]), int(context.spec["pairs"])
    part = context.spec["part"]
    folder = context.needed("data") / "test"
    if part == "synthetic":
        folder = context.needed("synthetic") / "synthetic"
    # Memory-mapped, and read pair by pair.
    images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)[:count]
    return measured(
        ["ms_ssim"],
        lambda: [ms_ssim_diversity(images, max_pairs=pairs).mean],
        Record(n_synthetic=count),
    )

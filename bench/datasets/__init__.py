"""Data sets and their preparation: the phantom and folders of scans to volume sets.

from bench.datasets.prepare import prepare

config = DataConfig(**read_data_argument("phantom"))
sets = prepare(open_source(config), config, folder)  # train, val, test
tasks = tasks_of(config, sets["train"].label_names)
"""

from __future__ import annotations

from bench.datasets.config import DataConfig, read_data_argument
from bench.datasets.source import RawCase, Source, open_source
from bench.datasets.split import guard_sets, guard_split
from bench.datasets.tasks import Task, default_tasks, tasks_of

__all__ = [
    "DataConfig",
    "RawCase",
    "Source",
    "Task",
    "builtin_datasets",
    "default_tasks",
    "guard_sets",
    "guard_split",
    "open_source",
    "read_data_argument",
    "tasks_of",
]


def builtin_datasets() -> list[tuple[str, str]]:
    """(name, description) of what ``--data`` takes, for ``bench list datasets``."""
    from bench.datasets.ready import read_ready, ready_names

    ready = [(f"{name}=FOLDER", read_ready(name).about.shows) for name in ready_names()]
    return [
        ("phantom", "procedural liver MR with portal vein, hepatic vein and HCC; no download"),
        ("FOLDER", "Decathlon layout: imagesTr, labelsTr, dataset.json"),
        ("FILE.yaml", "fields of the data configuration: source, grid, labels, tasks, split, ..."),
        *ready,
    ]

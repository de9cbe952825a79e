"""The engine's block of YAML: how many processes, where, and what one cell may take.

Nothing here is part of a cell's key: results do not depend on what carries them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError

from bench.errors import InputError
from bench.generator import Frozen


class SlurmConfig(Frozen):
    """Slurm: one cell is one job."""

    partition: str | None = Field(None, description="Slurm's default where null")
    account: str | None = Field(None, description="to which the jobs are charged")
    qos: str | None = None
    walltime: str = Field(
        "04:00:00", pattern=r"^\d+:\d\d:\d\d$", description="of one job; a longer fit takes several"
    )
    margin_s: float = Field(
        120, gt=0, description="before the walltime ends, a cell checkpoints and stops"
    )
    gpus: int = Field(0, ge=0, description="GPUs of a job")
    cores: int | None = Field(None, ge=1, description="cores of a job")
    memory_gb: int | None = Field(None, ge=1, description="memory of a job")
    setup: str = Field("", description="shell lines before the worker starts: modules, environment")
    options: str = Field("", description="further #SBATCH lines")
    exclusive: bool = Field(False, description="whole nodes")
    poll_s: float = Field(30, gt=0, description="between two looks at the queue")


class EngineConfig(Frozen):
    """`bench run --engine FILE.yaml`; `--workers N` is `workers: N` alone."""

    provider: Literal["local", "slurm"] = Field("local", description="what starts the workers")
    workers: int = Field(1, ge=1, description="cells at a time; with slurm, jobs at a time")
    gpus: int | Literal["auto"] = Field(
        "auto", description="local GPUs, one pinned to a worker; auto is all there are"
    )
    timeout_minutes: float | None = Field(None, gt=0, description="of one cell; null is none")
    memory_gb: float | None = Field(
        None, gt=0, description="resident memory of one cell, beyond which it is killed"
    )
    address: str = Field(
        "127.0.0.1",
        description="at which the driver listens for workers; nodes of a cluster need one that "
        "they can reach",
    )
    slurm: SlurmConfig = SlurmConfig()


def read_engine(path: Path | None, workers: int | None) -> EngineConfig | None:
    """The engine asked for; None is this process. InputError names a key that cannot be."""
    if path is None:
        return None if workers is None else EngineConfig(workers=workers)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if workers is not None:
            values["workers"] = workers
        return EngineConfig.model_validate(values)
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"The engine's file {path} cannot be read: {error}.") from error
    except (ValidationError, TypeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"msg": str(error)}
        where = ".".join(map(str, first.get("loc", ()))) or "its top level"
        raise InputError(f"The engine's file {path} at {where}: {first['msg']}.") from error

"""A true Slurm on this machine's loopback: munge, slurmctld and slurmd of Debian, in one folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel", "scontrol")
NODES = ("one", "two")
READY_S = 60


class NoSlurm(RuntimeError):
    """Slurm cannot be had here, with the reason."""


def require_slurm() -> None:
    """Install Debian's packages where they are missing; NoSlurm says why that cannot be done."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NoSlurm(f"{', '.join(missing)} are missing, and only root on Debian installs them")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
        ran = subprocess.run(
            ["apt-get", "--quiet", *command], env=quiet, capture_output=True, text=True, check=False
        )
        if ran.returncode:
            raise NoSlurm(f"apt-get {command[0]} failed: {ran.stderr.strip().splitlines()[-1:]}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Cluster:
    """A Slurm whose commands find it by the variable SLURM_CONF."""

    folder: Path
    processes: list[subprocess.Popen[bytes]]

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def call(self, *command: str) -> str:
        ran = subprocess.run(
            command,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        if ran.returncode:
            raise RuntimeError(f"{' '.join(command)}: {ran.stderr}")
        return ran.stdout

    def jobs(self, states: str = "all") -> list[dict[str, str]]:
        """Jobs that Slurm knows of, oldest first."""
        rows = self.call("squeue", "--noheader", f"--states={states}", "--format=%i|%T|%N|%j")
        fields = ("id", "state", "node", "name")
        found = [dict(zip(fields, row.split("|"), strict=True)) for row in rows.splitlines()]
        return sorted(found, key=lambda job: int(job["id"]))


def write_configuration(folder: Path) -> None:
    """slurm.conf of two nodes that are this machine, without accounting."""
    host = socket.gethostname().split(".")[0]
    nodes = [
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs=2 "
        "RealMemory=4000 State=UNKNOWN"
        for name in NODES
    ]
    lines = [
        "ClusterName=voxelbench",
        f"SlurmctldHost={host}(127.0.0.1)",
        f"SlurmctldPort={free_port()}",
        "AuthType=auth/munge",
        f"AuthInfo=socket={folder}/munge/socket",
        "CredType=cred/munge",
        "SlurmUser=root",
        "SlurmdUser=root",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool-%n",
        f"SlurmctldPidFile={folder}/slurmctld.pid",
        f"SlurmdPidFile={folder}/slurmd-%n.pid",
        f"SlurmctldLogFile={folder}/slurmctld.log",
        f"SlurmdLogFile={folder}/slurmd-%n.log",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "JobAcctGatherType=jobacct_gather/none",
        "AccountingStorageType=accounting_storage/none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU",
        "MpiDefault=none",
        "ReturnToService=2",
        "KillWait=20",
        "SlurmdParameters=config_overrides",
        *nodes,
        f"PartitionName=main Nodes={','.join(NODES)} Default=YES MaxTime=INFINITE State=UP",
    ]
    for name in ("state", "munge", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir(mode=0o700, parents=True)
    (folder / "slurm.conf").write_text("\n".join(lines) + "\n")
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Two nodes with two cores each; every daemon ends with the context. NoSlurm says why not."""
    require_slurm()
    folder.mkdir(mode=0o755, parents=True)
    write_configuration(folder)
    made = Cluster(folder, [])
    munge = folder / "munge"
    commands = [
        [
            *("munged", "--foreground", "--force", f"--key-file={munge}/key"),
            *(f"--socket={munge}/socket", f"--pid-file={munge}/pid"),
            *(f"--log-file={munge}/log", f"--seed-file={munge}/seed"),
        ],
        ["slurmctld", "-D", "-c"],
        *(["slurmd", "-D", "-N", node] for node in NODES),
    ]
    try:
        for command in commands:
            made.processes.append(
                subprocess.Popen(
                    command,
                    env={**os.environ, **made.environment},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
            time.sleep(1)
        _wait_until_idle(made)
        yield made
    finally:
        for process in reversed(made.processes):
            process.terminate()
        for process in made.processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


def _wait_until_idle(made: Cluster) -> None:
    deadline, told = time.monotonic() + READY_S, ""
    while time.monotonic() < deadline:
        with suppress(RuntimeError, subprocess.TimeoutExpired):
            told = made.call("sinfo", "--noheader", "--Node", "--format=%N %T")
            if sorted(told.splitlines()) == [f"{node} idle" for node in NODES]:
                return
        time.sleep(0.5)
    log = made.folder / "slurmctld.log"
    tail = log.read_text().splitlines()[-5:] if log.is_file() else []
    raise NoSlurm(f"the nodes did not come up within {READY_S} s: {told!r} {tail}")

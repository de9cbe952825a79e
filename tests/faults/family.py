"""All processes of a run, wherever they hang in the tree: they share a variable."""

from __future__ import annotations

import subprocess
import uuid
from contextlib import suppress
from dataclasses import dataclass, field

import psutil
from conftest import start

MARK = "VOXELBENCH_FAMILY"


@dataclass
class Family:
    """A run that was started, and whatever it started."""

    name: str = field(default_factory=lambda: uuid.uuid4().hex)

    def start(self, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        # Parsl's titles of processes would lie over the environment that /proc shows.
        return start(*arguments, **{MARK: self.name, "SPT_NOENV": "1"}, **environment)

    def members(self) -> list[psutil.Process]:
        """Those that run now: the command itself, Parsl's, workers, servers and cells."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                alive = process.status() != psutil.STATUS_ZOMBIE
                if alive and process.environ().get(MARK) == self.name:
                    found.append(process)
        return found

    def addresses(self) -> set[str]:
        """At which any of them listens."""
        found: set[str] = set()
        for process in self.members():
            with suppress(psutil.Error):
                listening = process.net_connections()
                found |= {
                    c.laddr.ip.removeprefix("::ffff:")  # IPv4 at an IPv6 socket
                    for c in listening
                    if c.status == psutil.CONN_LISTEN
                }
        return found

    def ended(self, seconds: float) -> bool:
        """Whether all of them end within `seconds`."""
        _, alive = psutil.wait_procs(self.members(), seconds)
        return not alive and not self.members()


def command_of(process: psutil.Process) -> str:
    """What a process runs, for messages; "" if it is gone."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""

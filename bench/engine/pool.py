"""Parsl's pool of workers, which ends when the server process that its workers share has ended.

What the workers do is written down in a server of multiprocessing. When that is killed, say where
memory is short, the workers end too, nothing starts new ones, and the pool lives on: it answers its
driver, which waits for ever, and writes the same error into its log until the disk is full. A pool
that ends is noticed, and its cells are given to a new one.

    python -m bench.engine.pool ARGUMENTS-OF-PROCESS_WORKER_POOL
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import threading
from pathlib import Path

LOOK_S = 0.5
SERVER = "SyncManager"
"""How multiprocessing names the process."""


def end_with_server(ending: threading.Event) -> None:
    """End this process when the server has ended, unless `ending` says that all do."""
    server = None
    while not ending.wait(LOOK_S):
        if server is None:
            children = multiprocessing.active_children()
            server = next((child for child in children if child.name.startswith(SERVER)), None)
        elif not server.is_alive() and not ending.is_set():
            os._exit(1)


if __name__ == "__main__":
    ending = threading.Event()
    threading.Thread(target=end_with_server, args=[ending], daemon=True).start()
    program = Path(sys.executable).parent / "process_worker_pool.py"
    sys.argv[0] = str(program)
    kept = runpy.run_path(str(program), run_name="__main__")  # kept, and the server with it
    ending.set()

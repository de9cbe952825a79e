"""Parsl's workers: processes on this machine, or one Slurm job for each cell."""

from __future__ import annotations

import atexit
import logging
import os
import shlex
import shutil
import sys
import time
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.disk import writing
from bench.engine.child import carry_out
from bench.engine.config import EngineConfig
from bench.engine.order import Ended, Order
from bench.engine.strays import end_strays, mark
from bench.errors import InputError

if TYPE_CHECKING:
    from parsl import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import SlurmProvider

HEARTBEAT_S = 2
HEARTBEATS_MISSED_S = 10
PROGRAMS = Path(sys.executable).parent
OWN_PROGRAMS = f"export PATH={shlex.quote(str(PROGRAMS))}:$PATH"
"""Parsl starts its own by their names, and this environment need not be activated."""
POOL = f"{shlex.quote(sys.executable)} -P -m bench.engine.pool"  # -P: not from the folder it is in
DRAIN_S = 30
"""A Slurm job takes cells only in its first seconds: more than it needs to register, and less than
most cells take."""


class Workers:
    """Parsl, loaded; it must be closed."""

    def __init__(self, config: EngineConfig, out: Path) -> None:
        """InputError if Parsl is not installed; DiskRefused if its folder cannot be written."""
        try:
            import parsl
        except ImportError as error:
            raise InputError(
                "Several workers need Parsl, which is not installed; pip install "
                "'voxelbench[parsl]'."
            ) from error
        logging.getLogger("parsl").setLevel(logging.CRITICAL)
        folder = out.resolve() / "parsl" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        self._name = mark()
        self._executor = executor(config, folder)
        with writing(out):
            self._kernel = parsl.load(parsl_config(config, self._executor, folder))
        self._call = parsl.python_app(carry_out, data_flow_kernel=self._kernel)

    def submit(self, order: Order) -> Future[tuple[str, str]]:
        """Send an order; InputError if Parsl could not start any worker."""
        self._require_health()
        future: Future[tuple[str, str]] = self._call(order.to_json())
        return future

    def ended(self, future: Future[tuple[str, str]]) -> Ended:
        """How an order ended; "lost" where its worker did not live to say."""
        from parsl.executors.errors import ExecutorError
        from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost

        try:
            return Ended(*future.result())  # type: ignore[arg-type]
        except (WorkerLost, ManagerLost) as error:
            return Ended("lost", str(error))
        except ExecutorError as error:
            self._require_health()
            return Ended("lost", str(error))

    def alive(self) -> bool:
        """Whether the process between this one and the workers runs."""
        process = self._executor.interchange_proc
        return process is not None and process.poll() is None

    def _require_health(self) -> None:
        if self._executor.bad_state_is_set:
            told = " ".join(str(self._executor.executor_exception).split())
            raise InputError(f"The engine's workers cannot be started: {told}; mend its block.")

    def close(self) -> None:
        """End the workers: SIGTERM to their cells, which write checkpoints."""
        try:
            self._end()
        finally:
            end_strays(self._name)

    def _end(self) -> None:
        if self.alive():
            self._kernel.cleanup()
            return
        # Parsl's own cleanup waits for an answer of the process that is gone.
        import parsl

        self._kernel.cleanup_called = True
        atexit.unregister(self._kernel.atexit_cleanup)
        self._executor._result_queue_thread_exit.set()
        provider: Any = self._executor.provider
        provider.cancel(list(provider.resources))
        parsl.clear()


def parsl_config(config: EngineConfig, executor: HighThroughputExecutor, folder: Path) -> Config:
    """Parsl's own configuration: no retries, since the store knows what is done; no telemetry."""
    from parsl import Config

    return Config(
        executors=[executor],
        retries=0,
        run_dir=str(folder),
        strategy="simple",
        strategy_period=1 if config.provider == "local" else config.slurm.poll_s,
        usage_tracking=0,
        initialize_logging=False,
    )


def executor(config: EngineConfig, folder: Path) -> HighThroughputExecutor:
    """Workers that end within seconds once the driver is gone."""
    from parsl.executors import HighThroughputExecutor
    from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
    from parsl.jobs.error_handlers import windowed_error_handler
    from parsl.providers import LocalProvider

    tied = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    local = config.provider == "local"
    return HighThroughputExecutor(
        label="cells",
        address=config.address,
        launch_cmd=POOL + DEFAULT_LAUNCH_CMD.removeprefix("process_worker_pool.py"),
        interchange_launch_cmd=[*tied, str(PROGRAMS / "interchange.py")],
        heartbeat_period=HEARTBEAT_S,
        heartbeat_threshold=HEARTBEATS_MISSED_S,
        worker_logdir_root=str(folder),
        block_error_handler=windowed_error_handler,
        encrypted=True,
        cores_per_worker=1e-6,  # the number of workers is the user's choice
        max_workers_per_node=config.workers if local else 1,
        drain_period=None if local else DRAIN_S,
        provider=LocalProvider(min_blocks=1, worker_init=OWN_PROGRAMS)  # type: ignore[no-untyped-call]
        if local
        else slurm_provider(config),
    )


def slurm_provider(config: EngineConfig) -> SlurmProvider:
    """One node for each job, as many jobs as there are cells to run, up to `workers`."""
    from parsl.launchers import SimpleLauncher
    from parsl.providers import SlurmProvider

    slurm = config.slurm

    class Provider(SlurmProvider):
        @property
        def status_polling_interval(self) -> int:
            return max(1, round(slurm.poll_s))

    return Provider(
        partition=slurm.partition,
        account=slurm.account,
        qos=slurm.qos,
        walltime=slurm.walltime,
        gpus_per_node=slurm.gpus or None,
        cores_per_node=slurm.cores,
        mem_per_node=slurm.memory_gb,
        worker_init=f"{OWN_PROGRAMS}\n{slurm.setup}",
        scheduler_options=slurm.options,
        exclusive=slurm.exclusive,
        launcher=SimpleLauncher(),
        init_blocks=0,
        min_blocks=0,
        max_blocks=config.workers,
        parallelism=1,
    )

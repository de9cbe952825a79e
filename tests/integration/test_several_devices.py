"""Two processes that train one network against one process with the whole batch."""

from __future__ import annotations

import csv
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
import torch
from conftest import finish, start
from toy_runs import cells, tiny

from bench.store import Store

STEPS = 6
LOSS_TOLERANCE = 1e-4
UNEVEN_SHARES = (("toy-conv", 3), ("toy-conv", 1))


def arguments(out: Path, segmenter: str, devices: int, batch_size: int, *more: str) -> list[object]:
    sizes = (
        *("--set", f"segmentation.training.steps={STEPS}"),
        *("--set", "segmentation.training.validate_every=3"),
        *("--set", f"segmentation.training.batch_size={batch_size}"),
        *("--set", "segmentation.keep_weights=true"),
        *("--set", "device.accelerator=cpu", "--set", "device.precision=32-true"),
    )
    return tiny(out, "none", segmenter, "--devices", str(devices), *sizes, *more)


def curve(out: Path, kind: str, start_of: str = "") -> dict[tuple[int, str], float]:
    """Scalars of the one cell of a kind: (step, name) -> value."""
    key = next(c.key for t, c in cells(out).items() if c.kind == kind and t.startswith(start_of))
    with (Store(out).work(key) / "fit.csv").open(newline="") as stream:
        return {(int(r["step"]), r["name"]): float(r["value"]) for r in csv.DictReader(stream)}


def weights(out: Path) -> dict[str, torch.Tensor]:
    key = next(cell.key for cell in cells(out).values() if cell.kind == "segment")
    path = Store(out).artefacts(key) / "weights.pt"
    loaded: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
    return loaded


@pytest.mark.parametrize(
    ("segmenter", "batch_size"),
    [
        ("unet", 2),
        *(pytest.param(*case, marks=pytest.mark.long) for case in UNEVEN_SHARES),
        pytest.param("dynunet", 4, marks=pytest.mark.long),
    ],
)
def test_two_processes_learn_what_one_learns_of_the_whole_batch(
    tmp_path: Path, segmenter: str, batch_size: int
) -> None:
    """Losses, norms of gradients, scores; uneven shares and a rank without a case among them."""
    for devices in (1, 2):
        ran = finish(start(*arguments(tmp_path / str(devices), segmenter, devices, batch_size)))
        assert ran.code == 0, ran.out + ran.err
    one, two = (curve(tmp_path / str(devices), "segment") for devices in (1, 2))
    assert one.keys() == two.keys()
    assert {step for step, name in one if name == "loss/all"} == set(range(1, STEPS + 1))
    for key, value in one.items():
        # Dice counts voxels, of which rounding turns a few.
        close = {"abs": 2e-3} if key[1].startswith("val/") else {"rel": LOSS_TOLERANCE}
        assert two[key] == pytest.approx(value, **close), key
    if segmenter == "toy-conv":  # a bias before a norm has no gradient but rounding, and Adam runs
        alone, together = weights(tmp_path / "1"), weights(tmp_path / "2")
        for name, tensor in alone.items():
            assert torch.allclose(together[name], tensor, rtol=1e-3, atol=1e-5), name


@pytest.mark.long
def test_half_a_batch_alone_would_learn_something_else(tmp_path: Path) -> None:
    """The tolerance above tells a whole batch from half of one."""
    for size in (1, 2):
        ran = finish(start(*arguments(tmp_path / str(size), "toy-conv", 1, size)))
        assert ran.code == 0, ran.err
    half, whole = (curve(tmp_path / str(size), "segment") for size in (1, 2))
    one, two = half[STEPS, "loss/all"], whole[STEPS, "loss/all"]
    assert one != pytest.approx(two, rel=10 * LOSS_TOLERANCE)


def slow(out: Path, devices: int, nap: float, steps: int = 40) -> list[object]:
    """A generator of one number, with batch normalisation, dropout and a fit of many steps."""
    name = "generators.toy-slow"
    more = (
        *("--set", f"{name}.training.steps={steps}", "--set", f"{name}.nap={nap}"),
        *("--set", f"{name}.training.batch_size=4"),
        *("--set", "device.checkpoint_minutes=0.001", "--devices", str(devices)),
    )
    return tiny(out, "toy-slow", "none", *more)


def wait_for_checkpoint(out: Path) -> None:
    """Until the fit of the generator has written one."""
    until = time.monotonic() + 120
    while not any(
        '"fit"' in (path.parents[2] / "cell.json").read_text()
        for path in out.glob("cells/*/work/resume/*.pt")
    ):
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_fit_stopped_on_two_devices_goes_on_with_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    running = start(*slow(out, 2, 0.3))
    wait_for_checkpoint(out)
    running.send_signal(signal.SIGTERM)
    stopped = finish(running)
    assert stopped.code == 130, stopped.out + stopped.err
    before = len(curve_steps(out))
    assert 0 < before < 40
    ran = finish(start(*slow(out, 1, 0.0)))
    assert ran.code == 0, ran.out + ran.err
    assert curve_steps(out) == list(range(1, 41))
    key = next(c.key for t, c in cells(out).items() if t.startswith("fit toy-slow"))
    state = torch.load(Store(out).artefacts(key) / "state.pt", weights_only=True)["net"]
    assert int(state["1.num_batches_tracked"]) == 40, "running means are the leader's"


def curve_steps(out: Path) -> list[int]:
    found = curve(out, "fit", "fit toy-slow")
    return sorted({step for step, name in found if name == "loss/all"})


@pytest.mark.long
def test_no_process_outlives_a_killed_leader(tmp_path: Path) -> None:
    out = tmp_path / "out"
    running = start(*slow(out, 2, 0.3, steps=400))
    wait_for_checkpoint(out)
    others = psutil.Process(running.pid).children(recursive=True)
    assert others
    os.kill(running.pid, signal.SIGKILL)
    finish(running)
    _, alive = psutil.wait_procs(others, timeout=20)
    assert [process for process in alive if "spawn_main" in " ".join(process.cmdline())] == []


@pytest.mark.parametrize(
    ("first_lines", "told"),
    [
        ("", "MemoryError: no room on this one"),
        (
            "import multiprocessing\nassert multiprocessing.parent_process() is None\n",
            "InputError: The plug-in file",
        ),
    ],
    ids=["in training", "before it begins"],
)
def test_a_device_that_fails_by_itself_is_told(tmp_path: Path, first_lines: str, told: str) -> None:
    plugin = tmp_path / "uneven.py"
    plugin.write_text(f"{first_lines}{UNEVEN}")
    sizes = ("--set", "device.accelerator=cpu", "--devices", "2")
    more = ("--plugin", str(plugin), *sizes)
    ran = finish(start(*tiny(tmp_path / "out", "uneven", "none", *more)))
    assert ran.code == 1
    assert f"Another device failed: {told}" in " ".join((ran.out + ran.err).split())


UNEVEN = '''"""A generator that one device has no room for."""
import torch
from torch import nn
from bench import Generator, GeneratorConfig, TrainingConfig, register_generator, train


@register_generator("uneven")
class Uneven(Generator):
    """Fails on the second device."""

    Config = GeneratorConfig
    labels = "joint"

    def fit(self, train_set, val, run):
        def losses(networks, x):
            if run.ranks.rank == 1:
                raise MemoryError("no room on this one")
            yield "all", networks["net"](x).square().mean()

        config = TrainingConfig(steps=3, batch_size=2)
        return train(run, {"net": nn.Linear(1, 1)}, losses, lambda _: torch.ones(2, 1), config)

    def sample(self, indices, run):
        raise AssertionError
'''

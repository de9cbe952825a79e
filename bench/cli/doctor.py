"""`bench doctor`: device, memory, versions, weights, and who owns the package names."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

from bench.names import DISTRIBUTION, PACKAGES, complaint, foreign_owners


def doctor() -> None:
    """Say what this machine and environment offer, and what stands in the way.

    Example: bench doctor
    """
    import platform

    from rich.console import Console

    from bench.device import Device
    from bench.machine import look, slow
    from bench.registry import EXTRACTORS

    console, machine = Console(), look()

    def say(name: str, *values: object) -> None:
        for i, value in enumerate(values):
            line = f"{'' if i else name:<17}{value}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)

    say("voxelbench", version(DISTRIBUTION))
    say("python", f"{platform.python_version()} on {platform.system()}")
    for library in ("torch", "monai", "lightning-fabric", "numpy"):
        say(library, version(library))
    gpus = [f"{g.name}, {g.free_gib:.1f} of {g.whole_gib:.1f} GiB free" for g in machine.gpus]
    say("device", *(gpus or [f"cpu, {machine.cores:g} cores, {machine.threads} threads"]))
    say("precision", Device().resolved_precision())
    say("memory", f"{machine.memory_free:.1f} of {machine.memory:.1f} GiB free")
    say("disk", f"{machine.disk_free:.1f} GiB free here")
    say("extractors", ", ".join(EXTRACTORS.names()))
    say("weights", *_weights())
    say("extras", *_extras(machine.parsl, machine.tensorboard))
    say("packages", *_owners())
    for line in _broken_plugins():
        say("plug-in", line)
    say("slow", *(slow(machine) or ["nothing that could be seen"]))


def _weights() -> Iterator[str]:
    """Where MedicalNet's weights are and whether they can be used, or every way to get them."""
    from metrics.extractors.weights import HUB_FILE, HUB_REPOSITORY, WEIGHTS_VARIABLE, find_weights

    try:
        if found := find_weights():
            from metrics.extractors.medicalnet import load_medicalnet

            _, sha256 = load_medicalnet(found)
            yield f"MedicalNet: {found}, sha256 {sha256[:16]}…, loads"
            return
    except ValueError as error:
        yield str(error)
        return
    yield "MedicalNet: not found. Until then FID uses the extractor texture. To have them:"
    yield f"  from the hub      hf download {HUB_REPOSITORY} {HUB_FILE}"
    yield "                    (from then on it is found, in the hub's cache)"
    yield f"  from a file       bench run --weights {HUB_FILE}"
    yield f"                    or export {WEIGHTS_VARIABLE}=/path/to/{HUB_FILE}"
    yield "  without network   run the first line on a machine that has one, which prints where the"
    yield "                    file lies, copy the file here, and name it as in the second"


def _extras(parsl: bool, tensorboard: bool) -> Iterator[str]:
    """What optional packages add."""
    for name, there, gives in (
        ("parsl", parsl, "--workers and --engine"),
        ("tensorboard", tensorboard, "scalars of every fit in TensorBoard"),
    ):
        missing = f"not installed: pip install '{DISTRIBUTION}[{name}]'"
        yield f"{name}: {'installed' if there else missing}, for {gives}"


def _owners() -> Iterator[str]:
    """Other distributions that claim one of our package names."""
    foreign = foreign_owners()
    for package, names in foreign.items():
        yield f"{package!r} is also installed by {', '.join(names)}; uninstall one of them"
    if problem := complaint():
        yield problem
    elif not foreign:
        yield "the names " + ", ".join(PACKAGES) + " are voxelbench's alone"


def _broken_plugins() -> Iterator[str]:
    """Installed plug-ins that cannot be imported."""
    from bench.registry import EXTRACTORS, GENERATORS, SEGMENTERS

    for registry in (GENERATORS, SEGMENTERS, EXTRACTORS):
        for name in registry.names():
            text = registry.description(name)
            if text.startswith("cannot be imported"):
                yield f"{name} of {registry.origin(name).source} {text}"

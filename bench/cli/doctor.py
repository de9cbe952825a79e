"""`bench doctor`: device, memory, versions, weights, and who owns the package names."""

from __future__ import annotations

from importlib.metadata import version

from bench.names import DISTRIBUTION, PACKAGES, foreign_owners


def doctor() -> None:
    """Say what this machine and environment offer, and what stands in the way."""
    import os
    import platform
    import shutil

    import psutil
    import torch
    from rich.console import Console

    from bench.device import Device

    console = Console()

    def say(name: str, value: object) -> None:
        console.print(f"{name:<17}{value}", highlight=False, markup=False, soft_wrap=True)

    say("voxelbench", version(DISTRIBUTION))
    say("python", f"{platform.python_version()} on {platform.system()}")
    for library in ("torch", "monai", "lightning-fabric", "numpy"):
        say(library, version(library))
    cuda = torch.cuda.is_available()
    say("device", torch.cuda.get_device_name() if cuda else f"cpu, {os.cpu_count()} cores")
    precision = Device().resolved_precision()
    say("precision", precision)
    say("memory", f"{psutil.virtual_memory().available / 2**30:.1f} GiB free")
    say("disk", f"{shutil.disk_usage('.').free / 2**30:.1f} GiB free here")
    from bench.registry import EXTRACTORS

    say("extractors", ", ".join(EXTRACTORS.names()))
    say("weights", _weights())
    foreign = foreign_owners()
    for package, names in foreign.items():
        say(
            "packages",
            f"{package!r} is also installed by {', '.join(names)}; uninstall one of them",
        )
    if not foreign:
        say("packages", "the names " + ", ".join(PACKAGES) + " are voxelbench's alone")


def _weights() -> str:
    from metrics.extractors.weights import HUB_FILE, HUB_REPOSITORY, WEIGHTS_VARIABLE, find_weights

    try:
        found = find_weights()
    except ValueError as error:
        return str(error)
    if found:
        return f"MedicalNet: {found}"
    return (
        f"MedicalNet: not found; get {HUB_FILE} from the hub's {HUB_REPOSITORY} and give "
        f"--weights or set {WEIGHTS_VARIABLE}. Until then FID uses the extractor texture."
    )

"""`bench doctor`: device, memory, versions, weights, and who owns the package names."""

from __future__ import annotations

from importlib.metadata import packages_distributions, version

from bench.errors import InputError

DISTRIBUTION = "voxelbench"
PACKAGES = ("bench", "generators", "segmenters", "metrics", "leaderboard")


def foreign_owners() -> dict[str, list[str]]:
    """Other distributions that install a top-level package of one of our names."""
    owners = packages_distributions()
    found = {p: sorted(set(owners.get(p, [])) - {DISTRIBUTION}) for p in PACKAGES}
    return {package: names for package, names in found.items() if names}


def foreign_modules() -> dict[str, str]:
    """Packages of our names that Python would import from somewhere else than beside `bench`."""
    from importlib.util import find_spec
    from pathlib import Path

    home = Path(__file__).resolve().parents[2]
    found = {}
    for package in PACKAGES:
        spec = find_spec(package)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or home not in origin.parents:
            found[package] = str(origin or "nowhere")
    return found


def refuse_foreign_packages() -> None:
    """InputError if a package of one of our names would be imported from another distribution."""
    for package, origin in foreign_modules().items():
        raise InputError(
            f"The package name {package!r} belongs to voxelbench here but is imported from "
            f"{origin}; "
            "uninstall the other distribution or use an environment of its own."
        )


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
        console.print(f"{name:<12} {value}", highlight=False, markup=False, soft_wrap=True)

    say("voxelbench", version(DISTRIBUTION))
    say("python", f"{platform.python_version()} on {platform.system()}")
    for library in ("torch", "monai", "lightning-fabric", "numpy"):
        say(library, version(library))
    cuda = torch.cuda.is_available()
    say("device", torch.cuda.get_device_name() if cuda else f"cpu, {os.cpu_count()} cores")
    precision = Device().resolved_precision()
    slow = "" if precision != "32-true" else " (this processor does not multiply bf16 in hardware)"
    say("precision", precision + slow)
    say("memory", f"{psutil.virtual_memory().available / 2**30:.1f} GiB free")
    say("disk", f"{shutil.disk_usage('.').free / 2**30:.1f} GiB free here")
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
    return (
        f"MedicalNet: {found}"
        if found
        else f"MedicalNet: not found; get {HUB_FILE} from the hub's {HUB_REPOSITORY} and give "
        f"or set {WEIGHTS_VARIABLE}. Until then FID uses the offline descriptor."
    )

"""Who owns the names of our top-level packages: they are common words.

Another distribution with a package of one of these names shadows ours or is shadowed by it, and
then fails far from the cause. `import bench` warns of it and the command line refuses to start.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

DISTRIBUTION = "voxelbench"
PACKAGES = ("bench", "generators", "segmenters", "metrics", "leaderboard")


def foreign_owners() -> dict[str, list[str]]:
    """Other distributions that install a top-level package of one of our names."""
    from importlib.metadata import packages_distributions

    owners = packages_distributions()
    found = {p: sorted(set(owners.get(p, [])) - {DISTRIBUTION}) for p in PACKAGES}
    return {package: names for package, names in found.items() if names}


def foreign_modules() -> dict[str, str]:
    """Packages of our names that Python would import from somewhere else than beside `bench`."""
    home = Path(__file__).resolve().parents[1]
    found = {}
    for package in PACKAGES:
        spec = find_spec(package)
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or home not in origin.parents:
            found[package] = str(origin or "nowhere")
    return found


def complaint() -> str:
    """One sentence about the first package that is imported from elsewhere; "" if none is."""
    for package, origin in foreign_modules().items():
        return (
            f"The package name {package!r} is voxelbench's but is imported from {origin}; "
            "uninstall the other distribution or use an environment of its own."
        )
    return ""

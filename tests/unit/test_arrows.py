"""The arrows of imports point one way."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = {"bench", "generators", "segmenters", "metrics", "leaderboard", "tests"}
API = {"bench", *(f"bench.{m}" for m in ("errors", "generator", "run", "segmenter", "sizes"))}
API |= {f"bench.{m}" for m in ("training", "training_config", "volumes", "datasets.tasks")}
# More cases of the phantom, beyond those prepared: for controls, a stranger's as well as ours.
API |= {"bench.datasets.fresh"}
# The published network and its file of weights, for a perceptual loss.
API |= {"metrics.extractors.medicalnet", "metrics.extractors.weights"}


def imports(package: str) -> set[tuple[str, str]]:
    """(file, module of ours) for every import in the package, inside functions as well."""
    found = set()
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path} imports relatively"
                names = [str(node.module)]
            name = path.relative_to(ROOT).as_posix()
            found |= {(name, m) for m in names if m.split(".")[0] in OURS}
    return found


def within(module: str, allowed: set[str]) -> bool:
    return any(module == a or module.startswith(f"{a}.") for a in allowed)


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("metrics", {"metrics"}),
        ("leaderboard", {"leaderboard", "bench.records", "metrics.statistics"}),
        ("bench", {"bench", "metrics", "leaderboard"}),
    ],
)
def test_a_package_imports_only_what_it_may(package: str, allowed: set[str]) -> None:
    wrong = {pair for pair in imports(package) if not within(pair[1], allowed)}
    assert wrong == set()


@pytest.mark.parametrize("package", ["generators", "segmenters"])
def test_plugins_import_only_the_api(package: str) -> None:
    wrong = {p for p in imports(package) if p[1] not in API and not within(p[1], {package})}
    assert wrong == set()


def test_only_reports_and_the_command_line_know_the_leaderboard() -> None:
    users = {file for file, module in imports("bench") if within(module, {"leaderboard"})}
    reports = {"bench/report.py", "bench/pictures.py"}
    assert {file for file in users if not file.startswith("bench/cli/")} == reports


def test_cells_know_no_engine_and_no_command_line() -> None:
    for part in ("cells", "datasets"):
        wrong = {m for _, m in imports(f"bench/{part}") if within(m, {"bench.engine", "bench.cli"})}
        assert wrong == set()
    planners = [m for file, m in imports("bench") if file == "bench/plan.py"]
    assert not any(within(m, {"bench.engine", "bench.cells", "bench.store"}) for m in planners)


def test_the_distribution_never_ships_tests() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == OURS - {
        "tests"
    }

"""Another distribution with one of our package names: said at import, refused at start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import names


def run_with(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "__init__.py").write_text("", encoding="utf-8")
    return tmp_path


def test_our_own_packages_are_no_cause_for_complaint() -> None:
    assert names.complaint() == ""


def test_import_warns_of_a_foreign_package(foreign: Path) -> None:
    ran = run_with(foreign, "-W", "error", "-c", "import bench")
    assert ran.returncode == 1
    assert f"'metrics' is voxelbench's but is imported from {foreign}" in ran.stderr


def test_the_command_line_refuses_a_foreign_package(foreign: Path) -> None:
    ran = run_with(foreign, "-W", "ignore", "-m", "bench.cli.main", "list", "presets")
    assert ran.returncode == 2
    assert ran.stderr.startswith("bench: The package name 'metrics' is voxelbench's")
    assert len(ran.stderr.splitlines()) == 1


def test_doctor_names_a_distribution_that_owns_a_name_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench.cli.doctor import doctor

    owners = {"metrics": ["voxelbench", "other-metrics"], "bench": ["voxelbench"]}
    monkeypatch.setattr("importlib.metadata.packages_distributions", lambda: owners)
    assert names.foreign_owners() == {"metrics": ["other-metrics"]}
    doctor()
    said = capsys.readouterr().out
    assert "'metrics' is also installed by other-metrics" in said
    for line in ("torch", "device", "precision", "memory", "disk", "weights"):
        assert f"\n{line}" in said

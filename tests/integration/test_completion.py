"""The shell completes commands, options and names: asked by a true bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

BENCH = Path(sys.executable).with_name("bench")
COMPLETE = """
source "$HOME/.bashrc"
COMP_WORDS=({words}) COMP_CWORD={last}
_bench_completion bench
printf '%s\\n' "${{COMPREPLY[@]}}"
"""

pytestmark = pytest.mark.skipif(
    shutil.which("bash") is None or not BENCH.is_file(), reason="needs bash and an installed bench"
)


def bash(script: str, home: Path) -> str:
    environment = {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{BENCH.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    ran = subprocess.run(
        ["bash", "--norc", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_bash_completes_after_installing(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text("")
    shown = bash("bench --show-completion bash", tmp_path)
    assert "complete -o default -F _bench_completion bench" in shown
    installed = bash("bench --install-completion bash", tmp_path)
    assert "completion installed" in installed

    def completions(*words: str) -> set[str]:
        quoted = " ".join(f"'{word}'" for word in words)
        script = COMPLETE.format(words=quoted, last=len(words) - 1)
        return set(bash(script, tmp_path).split())

    assert completions("bench", "st") == {"status"}
    assert "--no-estimate" in completions("bench", "run", "--no")
    assert completions("bench", "run", "--generators", "ha-gan,3d-") == {
        "ha-gan,3d-ddpm",
        "ha-gan,3d-lldm",
    }
    assert completions("bench", "new", "g") == {"generator"}

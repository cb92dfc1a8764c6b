"""`make demo COPIES=student` on untouched copies: every check passes, references stand in for the stubs; bounds on time and memory.

At most 15 minutes, 25 of processor time and 6 GiB. The solved notebooks are the same but for the exercises, and run under nbval.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mmedlite.demo import NOTEBOOKS
from mmedlite.exercises import EXERCISES


@pytest.mark.timeout(1800)
def test_demo_keeps_its_limits(root: Path) -> None:
    command = [sys.executable, "-m", "mmedlite.demo", "--profile", "tiny", "--copies", "student"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    run = root / "runs" / "latest"
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert done.stdout.splitlines()[-1] == f"{results['checks']['passed']} checks passed, 0 failed, {len(EXERCISES)} assisted"
    print(f"{results['minutes']} minutes, {results['cpu_minutes']} of processor time")
    assert results["minutes"] <= 15
    assert results["cpu_minutes"] <= 25
    assert results["peak_memory_gib"] <= 6
    assert sorted(path.stem for path in (run / "notebooks").glob("*.ipynb")) == list(NOTEBOOKS)

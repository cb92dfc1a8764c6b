"""What the recommended recipe gains over three fitted weights, by accuracy of the panel and correlation of its errors.

``python -m figures.gain_map`` trains a policy a cell on clinic 0, the three specialists replaced by dialled ones (``mmedlite.simulated``),
and writes ``figures/data/map/<cell>.parquet``: a row a test case, a column a system. Stopped in any way, it goes on where it was.
"""

from __future__ import annotations

import re

from figures._wide import write_wide
from figures.artifacts import SEEDS
from figures.worlds import SCRIPT, answer_missing
from mmedlite.evidence import UNTRAINED
from mmedlite.gain_map import CASES, CELLS, GAINED, MAP, dials_of
from mmedlite.profiles import ROOT
from mmedlite.run import Run
from mmedlite.side_by_side import side_by_side

WORK = ROOT / "runs" / "map"


def open_cell(cell: str) -> Run:
    """The run of a cell: the tiny profile with a dialled panel in place of the specialists."""
    accuracy, correlation = dials_of(cell)
    panel = f"""[panels]
dialled = ["simulated", "simulated", "simulated"]

[simulated]
accuracy = {accuracy}
correlation = {correlation}
corrupted = 0.0
"""
    text = (ROOT / "mmedlite" / "profiles" / "tiny.toml").read_text(encoding="utf-8")
    text = re.sub(r"\[panels\].*?\n\n", panel + "\n", text, count=1, flags=re.DOTALL).replace("eval_cases = 0", f"eval_cases = {CASES}")
    WORK.mkdir(parents=True, exist_ok=True)
    (profile := WORK / f"{cell}.toml").write_text(text, encoding="utf-8")
    return Run(WORK / cell, str(profile), seed=SEEDS[0])


def train_cell(_: Run, cell: str) -> None:
    """Train one cell, answer the test cases, write its table; what is there stays."""
    if (file := MAP / f"{cell}.parquet").exists():
        return
    run = open_cell(cell)
    recipe, change = GAINED.split("_", 1)
    answer_missing(run, [(recipe, change)])
    write_wide(run, [*UNTRAINED, GAINED], file, SCRIPT)


def main() -> None:
    """Train what is missing."""
    side_by_side(open_cell(CELLS[0]), [(train_cell, cell) for cell in CELLS])


if __name__ == "__main__":
    main()

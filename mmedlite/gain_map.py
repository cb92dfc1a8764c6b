"""Where does training pay? The gain over the three-weight reader against accuracy of the panel and correlation of its errors.

Counted from ``figures/data/map/<cell>.parquet`` (``figures.gain_map`` writes them; dialled panels) and from the clinic's two panels. The
paper's three training sets stand where the shares of its Table 3 put them.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmedlite.answers import parse_lenient
from mmedlite.asks import PANEL_SIZE, Ask
from mmedlite.cases import CaseTable
from mmedlite.evaluation import implied_panel, paired_difference
from mmedlite.evidence import DATA, RECOMMENDED, read_wide
from mmedlite.rescore import Panels
from mmedlite.simulated import SimulatedSpecialists

MAP, GAINED = DATA / "map", RECOMMENDED
ACCURACY, CORRELATION = (0.45, 0.6, 0.75, 0.9), (0.0, 0.4, 0.8)
CELLS = [f"{a:.2f}-{c:.2f}" for a in ACCURACY for c in CORRELATION]
CASES = 1600  # test cases of clinic 0, as in a world
PAPER_SETS = ("VQA-RAD", "SLAKE", "PathVQA")


def dials_of(cell: str) -> tuple[float, float]:
    """(accuracy, correlation) of a cell."""
    accuracy, correlation = map(float, cell.split("-"))
    return accuracy, correlation


def dialled(cell: str, table: CaseTable) -> Panels:
    """What the dialled panel of a cell says of a case: three options."""
    source = SimulatedSpecialists(["dialled"], *dials_of(cell))

    @cache
    def options(panel: str, case_id: str, department: str) -> list[int] | None:
        asks = [Ask(case := table.by_id(case_id), department, panel, i) for i in range(PANEL_SIZE)]
        said = [parse_lenient(reply.text, case.options).option for _, reply in next(source.answers(table, asks))]
        return [-1 if o is None else o for o in said]

    return options


def gain(frame: pd.DataFrame, trained: str) -> dict[str, Any]:
    """Accuracies, and the trained policy minus the three-weight reader, paired by image."""
    return {**{name: float(frame[name].mean()) for name in (trained, "three_weights", "majority_vote")},
            "gain": paired_difference(frame[trained], frame["three_weights"], frame["case_id"])}  # fmt: skip


def count(data: Path = DATA) -> dict[str, Any]:
    """{"cells": of dialled panels, "clinic": of the trained specialists, "paper": where its sets lie}; {} where no cell is there.

    A cell or panel: accuracy of a specialist, correlation of two specialists' errors (dialled, or measured on the test cases) and
    ``gain``. Of a set of the paper only the first two: nothing was measured there.
    """
    files = {cell: data / "map" / f"{cell}.parquet" for cell in CELLS}
    there = {cell: read_wide(file) for cell, file in files.items() if file.exists()}
    if not there:
        return {}
    cells = {cell: dict(zip(("accuracy", "correlation"), dials_of(cell), strict=True)) | gain(f, GAINED) for cell, f in there.items()}
    three, clinic = [f"specialist_{i + 1}" for i in range(PANEL_SIZE)], {}
    for panel, part in read_wide(data / "rivals.parquet").groupby("panel"):
        wrong = ~part[three].to_numpy()  # (n, 3)
        rho = float(np.corrcoef(wrong.T)[np.triu_indices(PANEL_SIZE, 1)].mean())
        clinic[str(panel)] = {"accuracy": float(1 - wrong.mean()), "correlation": rho, **gain(part, "trained")}
    table = json.loads((DATA / "paper_tables.json").read_text(encoding="utf-8"))["tables"]["3"]
    paper = {}
    for name in PAPER_SETS:
        column = table["columns"].index(name)
        shares = np.array([table["rows"][bucket][column] for bucket in ("easy", "medium", "hard")], float)
        paper[name] = dict(zip(("accuracy", "correlation"), implied_panel(*(shares / shares.sum())[[0, 2]]), strict=True))
    return {"cells": cells, "clinic": clinic, "paper": paper}

"""The primary contrasts of the analysis plan, a dot a world, on both panels: from ``evidence.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from figures._save import save
from mmedlite import plots
from mmedlite.evidence import DATA


def contrasts(rows: Mapping[str, Mapping[str, Any]], done: int, planned: int) -> tuple[plots.Drawing, str]:
    """Contrasts over worlds; rows: "contrast, panel" -> mean, low, high, worlds (a difference each), p_holm, as ``evidence.primary`` gives."""
    table = pd.DataFrame(rows).T[["mean", "low", "high", "p_holm"]].astype(float)
    panels = sorted({name.rsplit(", ", 1)[1] for name in rows})

    def paint(fig: plots.Drawing) -> None:
        axes = fig.subplots()
        axes.axvline(0, color="0.3", linestyle="--", linewidth=1.2)
        for i, (name, row) in enumerate(rows.items()):
            kind = panels.index(name.rsplit(", ", 1)[1])
            axes.plot(row["worlds"], [i + 0.22] * len(row["worlds"]), plots.MARKERS[kind], color=f"C{kind}", mfc="none", markersize=4)
            whole = [row[k] for k in ("low", "mean", "high")]
            axes.plot(whole, [i] * 3, plots.LINES[kind] + plots.MARKERS[kind], color=f"C{kind}", markevery=[1])
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set(xlabel=f"difference of test accuracy; small marks: {done} of {planned} worlds", ylim=(len(rows) - 0.5, -0.5))
        axes.locator_params(axis="x", nbins=6)
        beside, told = axes.twinx(), [f"{mean:+.3f} [{low:+.3f}, {high:+.3f}], Holm p {p:.3f}" for mean, low, high, p in table.to_numpy()]
        beside.set(ylim=axes.get_ylim(), yticks=range(len(rows)), yticklabels=told)
        beside.tick_params(length=0, grid_alpha=0)

    said = "; ".join(f"{k} {m:+.3f} [{lo:+.3f}, {hi:+.3f}], Holm p {p:.3f}" for k, m, lo, hi, p in table.itertuples())
    return plots.draw(paint, table, (8.6, 1.0 + 0.45 * len(rows))), f"Contrasts over {done} of {planned} worlds, 95 % intervals: {said}."


def main() -> None:
    """Draw the contrasts of the worlds that are there."""
    evidence = json.loads((DATA / "evidence.json").read_text(encoding="utf-8"))
    if evidence:
        save("contrasts", *contrasts(evidence["primary"], len(evidence["worlds"]), evidence["planned"]))


if __name__ == "__main__":
    main()

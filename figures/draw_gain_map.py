"""The map: gain over the three-weight reader against accuracy of the panel and correlation of its errors, from ``map.json``."""

from __future__ import annotations

import json
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle

from figures._save import save
from mmedlite import plots
from mmedlite.evaluation import signed
from mmedlite.evidence import DATA

WIDE, HIGH = 0.08, 0.16  # of a square, around the dials that were tried
MOST = 10  # percentage points at which the colours end


def _points(gain: dict[str, float]) -> str:
    """A difference in percentage points, * where its interval leaves out 0."""
    return f"{100 * gain['mean']:+.1f}" + ("" if gain["low"] <= 0 <= gain["high"] else "*")


def gain_map(found: dict[str, Any]) -> tuple[plots.Drawing, str]:
    """A square a trained cell, coloured and with its number; all else hatched; found: as from ``mmedlite.gain_map.count``."""
    rows = {**found["cells"], **found["clinic"]}
    measured = pd.DataFrame({n: {"accuracy": r["accuracy"], "correlation": r["correlation"], **r["gain"]} for n, r in rows.items()}).T
    table = pd.concat([measured, pd.DataFrame(found["paper"]).T])

    def paint(fig: plots.Drawing) -> None:
        axes, line = fig.subplots(), {"arrowstyle": "-", "color": "0.35", "shrinkB": 4}
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        axes.add_patch(Rectangle((0.35, -0.15), 0.7, 1.35, facecolor="white", edgecolor="0.8", hatch="///", lw=0))
        axes.text(0.36, 1.14, "hatched: no data here", bbox=box)
        colours, norm = matplotlib.colormaps["PuOr"], matplotlib.colors.Normalize(-MOST, MOST)
        for row in found["cells"].values():
            x, y, points = row["accuracy"], row["correlation"], 100 * row["gain"]["mean"]
            axes.add_patch(Rectangle((x - WIDE / 2, y - HIGH / 2), WIDE, HIGH, facecolor=colours(norm(points)), edgecolor="0.4"))
            axes.text(x - 0.035, y - 0.045, _points(row["gain"]), va="center", color="white" if abs(points) > 0.7 * MOST else "black")
        for mark, up, (name, row) in zip("os", (10, -3), found["clinic"].items(), strict=True):
            at = (row["accuracy"], row["correlation"])
            axes.plot(*at, mark, color="black", zorder=3)
            told = f"clinic, {name.replace('_', '-')}: {_points(row['gain'])}"
            axes.annotate(told, at, (10, up), textcoords="offset points", va="center", bbox=box)
        for name, row in found["paper"].items():
            at = (row["accuracy"], row["correlation"])
            axes.plot(*at, "x", color="black", mew=2, zorder=3)
            axes.annotate(f"{name}\n(paper)", at, (at[0] + 0.7 * (at[0] - 0.73), 0.98), ha="center", bbox=box, arrowprops=line)
        axes.set(xlim=(0.35, 1.0), ylim=(-0.15, 1.2), xlabel="accuracy of one specialist", ylabel="correlation of two specialists' errors")
        axes.set_yticks(np.linspace(0, 1, 6))  # a correlation ends at 1; above it stand names
        axes.grid(visible=False)

    said = "; ".join(f"accuracy {r['accuracy']:.2f}, correlation {r['correlation']:.2f}: {signed(r['gain'])}" for r in rows.values())
    sets = "; ".join(f"{name} {r['accuracy']:.2f}, {r['correlation']:.2f}" for name, r in found["paper"].items())
    alt = (
        "Accuracy of the trained policy minus that of the three-weight reader (95 % intervals; in the figure in percentage points, * where "
        f"the interval leaves out 0), by accuracy of a specialist and correlation of errors. {said}. The paper's training sets, where the "
        f"shares of its Table 3 put them and nothing was measured: {sets}. Hatched: no data here."
    )
    return plots.draw(paint, table, (7.4, 5.4)), alt


def main() -> None:
    """Draw what is there."""
    if found := json.loads((DATA / "map.json").read_text(encoding="utf-8")):
        save("gain_map", *gain_map(found))


if __name__ == "__main__":
    main()

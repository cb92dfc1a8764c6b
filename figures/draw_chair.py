"""The attending's chair as a page of its own (``figures/drawn/chair.html``) and as a strip, both from ``chair.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from figures._save import DRAWN, save
from mmedlite import plots
from mmedlite.chair import page, unpacked
from mmedlite.evidence import DATA

SHOWN = {"three say no": (1, 1, 1), "two no, one yes": (1, 1, 0), "three silent": (2, 2, 2)}


def strip(found: dict[str, Any], panel: str = "diverse", phantom: int = 1) -> tuple[plots.Drawing, str]:
    """Probability of yes against the contrast of a finding that is there, one axis a panel, one line a policy of the recipe."""
    yes = {name: unpacked(text, found) for name, text in found["panels"][panel]["yes"].items()}

    def at(name: str, says: Sequence[int]) -> np.ndarray:
        return yes[name][phantom, :, int(np.ravel_multi_index(tuple(says), (len(found["says"]),) * 3))]  # (contrasts,)

    table = pd.concat([pd.DataFrame({name: at(name, says) for name in yes}, index=found["contrasts"]).assign(panel=title)
                       for title, says in SHOWN.items()])  # fmt: skip

    def paint(fig: plots.Drawing) -> None:
        for ax, (title, says) in zip(fig.subplots(1, len(SHOWN), sharey=True), SHOWN.items(), strict=True):
            for i, name in enumerate(yes):
                style = {"linestyle": plots.LINES[i % len(plots.LINES)], "marker": plots.MARKERS[i], "color": f"C{i}", "markevery": 4}
                ax.plot(found["contrasts"], at(name, says), label=name, **style)
            ax.set(title=title, xlabel="contrast of the finding", ylim=(-0.03, 1.03))
        fig.axes[0].set(ylabel="probability of yes")
        fig.legend(*fig.axes[0].get_legend_handles_labels(), ncols=len(yes), loc="outside upper center")

    last = found["contrasts"][-1]
    told = "; ".join(f"{title}: " + ", ".join(f"{name} {at(name, says)[0]:.2f} to {at(name, says)[-1]:.2f}" for name in yes)
                     for title, says in SHOWN.items())  # fmt: skip
    shown = found["phantoms"][phantom]
    alt = f"{shown['look']}, {shown['question']} The {shown['finding']} is there. Probability of yes from contrast 0 to {last} of 256. {told}."
    return plots.draw(paint, table, (9.6, 3.6)), alt


def main() -> None:
    """Draw what is there."""
    if (file := DATA / "chair.json").exists():
        found = json.loads(file.read_text(encoding="utf-8"))
        save("chair_strip", *strip(found))
        (DRAWN / "chair.html").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()

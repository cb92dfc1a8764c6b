"""How a drawn figure is stored: vector and pixels, its alt text and the numbers it draws."""

from __future__ import annotations

import matplotlib.style

from mmedlite.plots import STYLE, Drawing, png
from mmedlite.profiles import ROOT

DRAWN = ROOT / "figures" / "drawn"


def save(name: str, fig: Drawing, alt: str) -> None:
    """Write ``figures/drawn/<name>.{svg,png,md}``; the same numbers give the same bytes."""
    DRAWN.mkdir(exist_ok=True)
    (DRAWN / f"{name}.png").write_bytes(png(fig, alt))
    with matplotlib.style.context([STYLE, {"svg.hashsalt": name, "svg.fonttype": "none"}]):
        fig.savefig(DRAWN / f"{name}.svg", metadata={"Date": None, "Title": name, "Description": alt})
    numbers = fig.numbers.to_csv(float_format="%.4f", lineterminator="\n")
    (DRAWN / f"{name}.md").write_text(f"# {name}\n\n{alt}\n\n```csv\n{numbers}```\n", encoding="utf-8")

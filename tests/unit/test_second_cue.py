"""What the figures of the widgets draw: what bears a name differs from its neighbours in more than colour, and stands out from white."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.container import BarContainer
from matplotlib.style import context

from mmedlite import checks, live, toy, widgets
from mmedlite.chair import STORED, strip
from mmedlite.plots import STYLE, Drawing
from mmedlite.token_entropy import Scored, entropy_figure
from tests.unit.test_live import LOG

ONE = Scored([["a", "b"]], np.ones((1, 2), bool), np.zeros((1, 2)), np.log(np.full((1, 2, 4), 0.25)))
FIGURES: dict[str, Callable[[], tuple[Drawing, str]]] = {
    "advantages": lambda: widgets.advantage_figure([1.5, 0.5, 0.5, 0.0]),
    "buckets": lambda: widgets.bucket_figure(0.75, 0.2),
    "order": lambda: widgets.order_strip({"one": ["easy", "medium", "hard"]}),
    "bands": lambda: widgets.bands_figure({k: b for k, b in checks.read_bands().items() if "0" in b["seeds"]}, {"triage_accuracy": 1.0}),
    "training": lambda: live.view(LOG, 7),
    "toy": lambda: toy.figure({order: toy.train(toy.recipe(order), toy.draw_cases()) for order in ("as printed", "mixed")}, toy.draw_cases()),
    "chair": lambda: strip(json.loads(STORED.read_text(encoding="utf-8")), "diverse"),
    "tokens": lambda: entropy_figure({"before": ONE, "after": ONE}, 1, 1.0),
}


def contrast(colour: Any) -> float:
    """Of a colour, as it shows on white, against white (WCAG 2.1)."""
    with context(STYLE):  # the kit's C0, C1, ...
        *rgb, alpha = to_rgba(colour)
    shown = alpha * np.array(rgb) + 1 - alpha
    linear = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
    return float(1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05))


def named(artist: Any) -> bool:
    return not str(artist.get_label()).startswith("_")


def faults(fig: Drawing) -> list[str]:
    """Named lines, bars and bands of an axis that only their colour tells apart, or that hardly show on white."""
    found = []
    for axes in fig.axes:
        lines = [line for line in axes.lines if named(line)]
        bars = [part for part in axes.containers if isinstance(part, BarContainer) and named(part)]
        cues = [(line.get_linestyle(), line.get_marker()) for line in lines]
        hatches = [bar[0].get_hatch() for bar in bars]
        if len({*cues}) < len(cues) or len({*hatches}) < len(hatches):
            found.append(f"told apart by colour alone: {[part.get_label() for part in (*lines, *bars)]}")
        found += [f"{line.get_label()}: {contrast(line.get_color()):.2f}" for line in lines if contrast(line.get_color()) < 3]
        for patch in [p for p in axes.patches if named(p) or any(p in bar for bar in bars)]:
            edge = contrast(patch.get_edgecolor()) if patch.get_linewidth() else 1.0
            if max(contrast(patch.get_facecolor()), edge) < 3:
                found.append(f"{patch.get_label()}: {contrast(patch.get_facecolor()):.2f}")
    return found


@pytest.mark.parametrize("name", FIGURES)
def test_a_second_cue_and_three_to_one(name: str) -> None:
    assert faults(FIGURES[name]()[0]) == []


def test_faults_are_found() -> None:
    fig = FIGURES["training"]()[0]
    for line in fig.axes[0].lines:
        line.set(linestyle="-", marker="")
    assert faults(fig)
    fig = FIGURES["bands"]()[0]
    fig.axes[0].patches[0].set_linewidth(0)
    assert any("band" in fault for fault in faults(fig))
    fig = FIGURES["tokens"]()[0]
    for bar in fig.axes[0].patches:
        bar.set_hatch("")
    assert faults(fig)

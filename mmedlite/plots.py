"""The signature figures. Each function takes numbers and returns (figure, alt text); ``show`` displays both.

Series differ in colour and in a second cue and bear their names. Alt texts come from the data; a figure without one is not shown.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mmedlite import evaluation
from mmedlite.curriculum import BUCKETS
from mmedlite.profiles import DEPARTMENTS, InputError

STYLE = Path(__file__).with_name("mmedlite.mplstyle")
MARKERS, LINES, HATCHES = "osD^vPX", ("-", "--", ":", "-."), ("", "//", "xx")
NO_PLANE = "none here, since in these cases no panel is unanimous and right, or none is unanimous and wrong"
CURVES = ("reward", "format", "accuracy", "entropy", "decision_entropy", "kl", "equal_groups")


class Drawing(Figure):
    """A figure that carries the numbers it draws."""

    numbers: pd.DataFrame


def draw(paint: Callable[[Drawing], object], numbers: pd.DataFrame, size: tuple[float, float] = (6.4, 4.2)) -> Drawing:
    """A new figure in the kit's style; without pyplot, so that nothing is shown twice or left open."""
    with matplotlib.style.context(STYLE):
        fig = Drawing(figsize=size, layout="constrained")
        FigureCanvasAgg(fig)
        fig.numbers = numbers
        paint(fig)
    return fig


def _refuse_silence(alt: str) -> None:
    """InputError for a figure that says nothing to who cannot see it."""
    if not alt.strip():
        raise InputError("a figure without alt text", "plots", "pass the text that the plotting function returned")


def png(fig: Figure, alt: str) -> bytes:
    """The figure as PNG of 32 colours, or 256 where it holds pictures, with the alt text inside; InputError without alt text."""
    _refuse_silence(alt)
    (info := PngInfo()).add_itxt("Description", alt)
    with matplotlib.style.context(STYLE):
        fig.savefig(full := io.BytesIO(), format="png")
    few = Image.open(full).convert("RGB").quantize(256 if any(a.images for a in fig.axes) else 32, Image.Quantize.MAXCOVERAGE, kmeans=3)
    few.save(small := io.BytesIO(), "PNG", pnginfo=info, optimize=True)
    return small.getvalue()


def number(value: float) -> str:
    """A number of a table: three places, but a count as a count, and a small one so that it is not 0.000."""
    if float(value).is_integer() and abs(value) > 1:
        return f"{value:,.0f}"
    return f"{value:.2g}" if 0 < abs(value) < 0.0005 else f"{value:.3f}"


def show(fig: Drawing | str, alt: str, of: str = "") -> None:
    """Display a figure (or the ledger's HTML) in a notebook: PNG with alt text, which stands with the numbers folded beneath, too.

    Nothing goes to stdout, so a comparison of notebook outputs leaves the numbers alone.

    Args:
        of: what a figure is of, where several look alike: stands above it and before its alt text.
    """
    from IPython.display import Image as Shown
    from IPython.display import display

    _refuse_silence(alt)
    if isinstance(fig, str):
        display({"text/html": fig}, raw=True)
        return
    if of:
        fig.suptitle(of)
        for legend in fig.legends:
            legend.set_loc("outside lower center")  # above, it and the title would lie on each other
        alt = f"{of}. {alt}"
    display(Shown(data=png(fig, alt), format="png", alt=alt))
    said = f"<p>{escape(alt)}</p>" + fig.numbers.to_html(float_format=number, na_rep="", border=0)  # JupyterLab hides alt texts
    display({"text/html": f"<details><summary>Description and numbers</summary>{said}</details>"}, raw=True)


def _plane(points: Mapping[str, Sequence[float]], curve: np.ndarray | None, path: bool) -> tuple[Drawing, str]:
    """A trust plane with named dots, in order joined by arrows if ``path``, and the dots as a sentence; NO_PLANE where one is nan."""
    table = pd.DataFrame([point[:2] for point in points.values()], list(points), ["x", "y"], dtype=float)
    if np.isnan(xy := table.to_numpy()).any():
        return draw(lambda fig: fig.text(0.01, 0.3, f"Trust plane: {NO_PLANE}"), table, (9.0, 0.5)), NO_PLANE
    said = [f"{name} ({x:.2f}, {y:.2f})" for name, (x, y) in zip(points, xy, strict=True)]
    if curve is not None:  # no height left of the curve
        table["above_curve"] = [evaluation.above_curve(p, curve) if p[0] >= curve[0, 0] else np.nan for p in xy]
        said = [f"{text}, {h:+.2f} from the bias curve" for text, h in zip(said, table["above_curve"], strict=True)]

    low, high = (xy.min(axis=0), xy.max(axis=0)) if path else (np.zeros(2), np.ones(2))  # a path is drawn close up
    span = np.maximum(high - low, 0.02)

    def paint(fig: Drawing) -> None:
        axes = fig.subplots()
        axes.set(xlim=(low[0] - 0.12 * span[0], high[0] + 0.34 * span[0]), ylim=(low[1] - 0.06 * span[1], high[1] + 0.06 * span[1]))
        axes.set_xticks([x for x in axes.get_xticks() if low[0] - 0.12 * span[0] <= x < 1.001])  # right of them: room for the names
        axes.set(xlabel="right where the panel is unanimous and right", ylabel="right where the panel is unanimous and wrong")
        if curve is not None:
            axes.plot(curve[:, 0], curve[:, 1], "--", color="0.35", label="untrained, bias varied")
            fig.legend(loc="outside upper center")
        for start, end in zip(xy[:-1], xy[1:], strict=True) if path else ():
            axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "0.2", "shrinkA": 6, "shrinkB": 6})
        floor = -1.0  # labels are pushed up until they are clear of the one below
        for i in np.argsort(xy[:, 1], kind="stable"):
            (x, y), name = xy[i], table.index[i]
            covered = (xy[i + 1 :] == xy[i]).all(axis=1).any()  # by a later dot: drawn as a ring around it
            ring: dict[str, Any] = {"markersize": 14, "markerfacecolor": "none", "markeredgewidth": 2} if covered else {}
            axes.plot(x, y, MARKERS[i % 7], color=f"C{i % 7}", clip_on=False, zorder=3, **ring)
            floor = max(y - 0.015 * span[1], floor + 0.055 * span[1])
            axes.text(x + 0.04 * span[0], floor, name, path_effects=[withStroke(linewidth=2, foreground="white")])

    return draw(paint, table, (5.2, 5.0)), "; ".join(said).replace(", +nan from the bias curve", "")


def trust_plane(points: Mapping[str, Sequence[float]], curve: np.ndarray | None = None) -> tuple[Drawing, str]:
    """points: name -> (x, y, ...) as from ``evaluation.trust_plane``; curve (m, 2): the untrained bias curve."""
    fig, said = _plane(points, curve, path=False)
    return fig, f"Trust plane, (x, y) = accuracy where the panel is unanimous and right, and wrong: {said}."


def policy_path(stages: Mapping[str, Sequence[float]], curve: np.ndarray | None = None) -> tuple[Drawing, str]:
    """The way of one policy over the trust plane; stages in order: name -> (x, y, ...)."""
    fig, said = _plane(stages, curve, path=True)
    return fig, f"Path of the policy over the trust plane, in order: {said}."


def effective_doctors(panels: Mapping[str, float], dialled: Sequence[float], implied: Mapping[str, float]) -> tuple[Drawing, str]:
    """What three doctors are worth; panels: name -> correlation of errors rho; dialled: simulated ones; implied: a range of them."""
    worth = evaluation.effective_doctors
    table = pd.DataFrame({"rho": {**panels, **implied}}).assign(effective=lambda t: t["rho"].map(worth))

    def paint(fig: Drawing) -> None:
        axes = fig.subplots()
        for x, mark in ((np.linspace(0, 1, 101), "--"), (dialled, "o")):
            axes.plot(x, [worth(r) for r in x], mark, color="0.35", markerfacecolor="none")
        ends = [min(implied.values()), max(implied.values())]
        axes.plot(ends, [most := worth(ends[0]), least := worth(ends[1])], color="C2", lw=7)
        note, line = f"implied by {', '.join(implied)}:\n{least:.2f} to {most:.2f}", {"arrowstyle": "-", "color": "0.5"}
        axes.annotate(note, (ends[0], most), (0.55, 1.75), arrowprops=line)
        for i, (name, r) in enumerate(panels.items()):
            axes.plot(r, worth(r), MARKERS[i % 7], color=f"C{(0, 1, 3, 4)[i % 4]}", clip_on=False, zorder=3)
            at, side = ((r + 0.01, worth(r) + 0.08), "left") if r < 0.85 else ((r - 0.03, worth(r) - 0.12), "right")
            axes.text(*at, f"{name}: {worth(r):.1f}", ha=side)
        axes.set(xlabel="correlation of two doctors' errors", ylabel="effective doctors", ylim=(0.75, 3.1))

    said = "; ".join(f"{name}: correlation {r:.2f}, worth {w:.2f}" for name, r, w in table.itertuples())
    return draw(paint, table), f"Effective doctors of 3 against correlation of errors. {said}; {len(dialled)} simulated as circles."


def consultation_matrix(matrix: Any, route: Sequence[int]) -> tuple[Drawing, str]:
    """matrix (7, 7): final accuracy for each true look (row, nan: no case) and consulted department; route (7,): whom triage asks, or -1."""
    values = np.asarray(matrix, float)
    n, names = len(values), list(DEPARTMENTS[: len(values)])
    table = pd.DataFrame(values, index=names, columns=names).assign(route=["" if r < 0 else names[int(r)] for r in route])
    own, other = np.nanmean(np.diag(values)), np.nanmean(values[~np.eye(n, dtype=bool)])
    hits, asked = sum(int(r) == i for i, r in enumerate(route)), sum(r >= 0 for r in route)

    def paint(fig: Drawing) -> None:
        axes = fig.subplots()
        axes.grid(False)
        picture = axes.imshow(values, cmap="cividis", vmin=0, vmax=1)
        for (row, column), value in np.ndenumerate(values):
            told = "" if np.isnan(value) else f"{value:.2f}"
            axes.text(column, row, told, ha="center", va="center", color="white" if value < 0.45 else "black")
        for row, column in ((row, column) for row, column in enumerate(route) if column >= 0):
            x, y = [column - 0.46, column + 0.46], [row - 0.46, row + 0.46]
            axes.plot([x[0], x[1], x[1], x[0], x[0]], [y[0], y[0], y[1], y[1], y[0]], color="C1", linewidth=2.5)
        axes.set_xticks(range(n), names, rotation=35, ha="right")
        axes.set_yticks(range(n), names)
        axes.set(xlabel="consulted department (framed: the learned route)", ylabel="department of the case")
        fig.colorbar(picture, label="final accuracy", shrink=0.8)

    alt = f"Final accuracy by department of the case and department asked: {own:.2f} on the diagonal, {other:.2f} off; "
    alt += f"a right referral is worth {own - other:+.2f}. The learned route hits the diagonal in {hits} of {asked} rows."
    return draw(paint, table, (7.0, 5.6)), alt


def buckets_vs_redraw(counts: Any) -> tuple[Drawing, str]:
    """counts (3, 3): cases by bucket (easy, medium, hard) in one draw of the panel (row) and in another (column)."""
    counts = np.asarray(counts, float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    table = pd.DataFrame(shares, index=list(BUCKETS), columns=[f"then {name}" for name in BUCKETS])

    def paint(fig: Drawing) -> None:
        axes = fig.subplots()
        left = np.zeros(3)
        for i, name in enumerate(BUCKETS):
            look: dict[str, Any] = {"color": f"C{i}", "hatch": HATCHES[i], "edgecolor": "white"}
            bars = axes.barh(range(3), shares[:, i], left=left, label=name, **look)
            paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
            labels = [f"{share:.0%}" if share > 0.05 else "" for share in shares[:, i]]
            for text in axes.bar_label(bars, labels, label_type="center"):
                text.set_bbox(paper if text.get_text() else None)
            left = left + shares[:, i]
        rows = [f"{name}\n({int(total)} cases)" for name, total in zip(BUCKETS, counts.sum(axis=1), strict=True)]
        axes.set_yticks(range(3), rows)
        axes.invert_yaxis()
        axes.set(xlabel="share of the cases, by bucket in a second draw", xlim=(0, 1))
        fig.legend(ncols=3, loc="outside upper center")

    stay = zip(BUCKETS, counts.sum(axis=1), np.diag(shares), strict=True)
    said = "; ".join(f"of {int(total)} {name} cases {share:.0%} stay {name}" for name, total, share in stay)
    return draw(paint, table, (6.4, 3.4)), f"Buckets from one draw of the panel against a second draw: {said}."


def paired_differences(rows: Mapping[str, Mapping[str, float]], what: str = "trained policy") -> tuple[Drawing, str]:
    """Forest plot; rows: baseline -> {mean, low, high, n} as from ``evaluation.paired_difference``."""
    table = pd.DataFrame(rows).T[["mean", "low", "high", "n"]]

    def paint(fig: Drawing) -> None:
        axes = fig.subplots()
        axes.axvline(0, color="0.3", linestyle="--", linewidth=1.2)
        for i, (mean, low, high, _) in enumerate(table.to_numpy()):
            clear = low > 0 or high < 0
            axes.plot([low, high], [i, i], color="C0" if clear else "0.45")
            axes.plot(mean, i, "o" if clear else "s", color="C0" if clear else "0.45", mfc=None if clear else "white")
        axes.set_yticks(range(len(table)), table.index)
        axes.set(xlabel=f"accuracy, {what} minus baseline (hollow: interval holds 0)", ylim=(len(table) - 0.5, -0.5))
        beside = axes.twinx()  # the numbers stand in a column of their own
        told = [f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]" for mean, low, high, _ in table.to_numpy()]
        beside.set(ylim=axes.get_ylim(), yticks=range(len(table)), yticklabels=told)
        beside.tick_params(length=0, grid_alpha=0)

    said = "; ".join(f"{k} {m:+.3f} [{lo:+.3f}, {hi:+.3f}], n = {int(n)}" for k, m, lo, hi, n in table.itertuples())
    fig = draw(paint, table, (7.4, 1.0 + 0.4 * len(table)))
    return fig, f"Paired differences, {what} minus baseline, 95 % intervals: {said}."


def training_curves(log: pd.DataFrame, boundaries: Mapping[str, float] | None = None) -> tuple[Drawing, str]:
    """log: one row a step with ``step`` and any of ``CURVES``; boundaries: stage name -> its first step."""
    shown = [column for column in CURVES if column in log and log[column].notna().any()]
    if not shown or "step" not in log:
        raise InputError("nothing to draw", "training log", f"give a column 'step' and one of: {', '.join(CURVES)}")
    window = max(1, len(log) // 15)
    smooth = log[shown].rolling(window, min_periods=1).mean()
    starts = dict(boundaries or {})

    def paint(fig: Drawing) -> None:
        panes = fig.subplots(-(-len(shown) // 4), min(4, len(shown)), sharex=True, squeeze=False).ravel()
        for pane in panes[len(shown) :]:
            pane.set_axis_off()
        for axes, column in zip(panes, shown, strict=False):
            i = CURVES.index(column)  # a signal looks alike in every figure
            known = log[["step", column]].dropna()  # some are measured every few steps
            line = "-" if len(known) == len(log) else "o"
            axes.plot(known["step"], known[column], line, color="0.75", lw=0.7, markersize=3, antialiased=False)  # few shades: a small file
            axes.plot(known["step"], smooth.loc[known.index, column], LINES[i % 4], color=f"C{i}")
            axes.set(ylabel=column, xlabel="step")
            axes.set_ylim(bottom=min(0, known[column].min()))
            axes.tick_params(labelbottom=True)  # the pane below may be empty
            for level, (name, step) in enumerate(starts.items()):  # each name on its own line: short stages lie close together
                axes.axvline(step, color="0.5", linestyle=":", linewidth=1)
                axes.text(step, 1.0 + 0.07 * (len(starts) - 1 - level), name, transform=axes.get_xaxis_transform(), va="bottom", fontsize=8)

        fig.supxlabel(f"grey: each step; strong: mean of the last {window}", fontsize=9)

    said = "; ".join(f"{c} from {smooth[c].dropna().iloc[0]:.3f} to {smooth[c].dropna().iloc[-1]:.3f}" for c in shown)
    alt = f"Training curves over {int(log['step'].max())} steps (moving average of {window}): {said}."
    if starts:
        alt += " Stages begin at " + ", ".join(f"{name} {step:g}" for name, step in starts.items()) + "."
    return draw(paint, log[["step", *shown]].iloc[:: max(1, len(log) // 20)], (9.2, 2.4 * -(-len(shown) // 4))), alt


def contact_sheet(images: Sequence[Any], titles: Sequence[str], columns: int = 7) -> tuple[Drawing, str]:
    """Pictures (PIL or uint8 arrays) in a grid, each under its title."""
    if len(images) != len(titles) or not len(images):
        raise InputError(f"{len(images)} pictures, {len(titles)} titles", "contact_sheet", "give one title a picture")
    rows = -(-len(images) // columns)

    def paint(fig: Drawing) -> None:
        panes = fig.subplots(rows, min(columns, len(images)), squeeze=False).ravel()
        for pane in panes:
            pane.set_axis_off()
        for pane, image, title in zip(panes, images, titles, strict=False):
            pane.imshow(np.asarray(image), interpolation="nearest")
            pane.set_title(title, fontsize=8, loc="center")

    fig = draw(paint, pd.DataFrame({"picture": list(titles)}), (1.25 * min(columns, len(images)), 1.45 * rows))
    return fig, f"Contact sheet, {len(images)} in all: {'; '.join(titles)}."

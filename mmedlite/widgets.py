"""Things to turn, and the cards and tables of the notebooks.

Each explorer is a plain function of its dials (-> figure, alt text) and a thin wrapper with sliders. The wrapper first shows the figure at
the starting dials, so that a reader without a running kernel sees it too, and so that an error in a plain function is one of the cell.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mmedlite import evaluation
from mmedlite.advantages import advantages
from mmedlite.curriculum import BUCKETS, bucket
from mmedlite.plots import HATCHES, Drawing, contact_sheet, draw, number, show, trust_plane
from mmedlite.profiles import InputError
from mmedlite.summary import difference

if TYPE_CHECKING:
    from mmedlite.cases import Case


def explore(plain: Callable[..., tuple[Drawing, str]], **dials: Any) -> None:
    """Show ``plain`` at the starting values of the dials (ipywidgets), then the dials."""
    import ipywidgets

    show(*plain(**{name: dial.value for name, dial in dials.items()}))
    ipywidgets.interact(lambda **values: show(*plain(**values)), **dials)


def toy_rewards(right: int, well_formed: int, group: int = 8) -> np.ndarray:
    """Rewards (group,): the first ``right`` answers earn 1, the first ``well_formed`` earn 0.5 for their format."""
    index = np.arange(group)
    return 1.0 * (index < right) + 0.5 * (index < well_formed)


def advantage_figure(rewards: Sequence[float] | np.ndarray, scale: bool = True) -> tuple[Drawing, str]:
    """The rewards of one group (G,) above the advantages that GRPO makes of them."""
    gain, index = advantages(rewards, scale), np.arange(1, len(rewards) + 1)
    table = pd.DataFrame({"reward": rewards, "advantage": gain}, index=[f"answer {i}" for i in index])

    def paint(fig: Drawing) -> None:
        top, bottom = fig.subplots(2, 1, sharex=True)
        top.bar(index, rewards, color="C0")
        looks = [("C2", "") if g > 0 else ("C1", "//") for g in gain]
        bottom.bar(index, gain, color=[look[0] for look in looks], hatch=[look[1] for look in looks])
        bottom.axhline(0, color="0.3", linewidth=1)
        top.set(ylabel="reward", ylim=(0, 1.6))
        bottom.set(ylabel="advantage", xlabel="answer of the group")

    flat = np.allclose(gain, 0)
    said = "all advantages 0: nothing learnt" if flat else f"advantages from {gain.min():+.2f} to {gain.max():+.2f}"
    return draw(paint, table), f"One group of {len(gain)} with rewards {', '.join(f'{r:g}' for r in rewards)}; {said}."


def advantage_explorer() -> None:
    """Sliders: how many of eight answers are right and well formed; division by the group's sd on or off."""
    import ipywidgets

    dials = {name: ipywidgets.IntSlider(value=v, min=0, max=8) for name, v in (("right", 3), ("well_formed", 6))}

    def plain(right: int, well_formed: int, scale: bool) -> tuple[Drawing, str]:
        return advantage_figure(toy_rewards(right, well_formed), scale)

    explore(plain, **dials, scale=ipywidgets.Checkbox(value=True))


def trust_figure(
    bias: float, swept: Mapping[float, Sequence[float]], curve: np.ndarray, points: Mapping[str, Sequence[float]]
) -> tuple[Drawing, str]:
    """The untrained policy at one bias towards the panel, on its curve, beside other points; swept: bias -> (x, y)."""
    if bias not in swept:
        raise InputError(f"bias {bias} was not measured", "widgets.trust_figure", f"use one of: {sorted(swept)}")
    return trust_plane({**points, f"untrained, bias {bias:+g}": swept[bias]}, curve)


def trust_explorer(swept: Mapping[float, Sequence[float]], curve: np.ndarray, points: Mapping[str, Sequence[float]]) -> None:
    """Slider over the measured biases: the untrained dot slides along its curve, the others stay."""
    import ipywidgets

    biases = sorted(swept)
    dial = ipywidgets.SelectionSlider(options=biases, value=min(biases, key=abs))
    explore(lambda bias: trust_figure(bias, swept, curve, points), bias=dial)


def fade_figure(contrast: float, paint: Callable[[float], Any]) -> tuple[Drawing, str]:
    """One phantom at one contrast, as ``paint(contrast)`` draws it (-> PIL image or uint8 (h, w, 3))."""
    return contact_sheet([paint(contrast)], [f"contrast {contrast:.3g}"])


def fade_explorer(paint: Callable[[float], Any], low: float = 0.0, high: float = 1.0, start: float = 0.5) -> None:
    """Slider over the contrast of a finding: where do you lose it?"""
    import ipywidgets

    dial = ipywidgets.FloatSlider(value=start, min=low, max=high, step=(high - low) / 20, continuous_update=False)
    explore(lambda contrast: fade_figure(contrast, paint), contrast=dial)


def bucket_shares(accuracy: float, correlation: float, e: int = 3) -> dict[str, float]:
    """Shares easy / medium / hard of a dialled panel of e doctors (a model, not a measurement).

    With probability ``correlation`` all share one draw, else each draws alone: so two doctors' errors correlate.
    bucket_shares(0.75, 0) -> easy 0.42, medium 0.56, hard 0.02; bucket_shares(0.75, 1) -> 0.75, 0, 0.25.
    """
    easy = correlation * accuracy + (1 - correlation) * accuracy**e
    hard = correlation * (1 - accuracy) + (1 - correlation) * (1 - accuracy) ** e
    return dict(zip(BUCKETS, (easy, max(0.0, 1 - easy - hard), hard), strict=True))


def bucket_figure(accuracy: float, correlation: float, e: int = 3) -> tuple[Drawing, str]:
    """``bucket_shares`` as bars."""
    shares = bucket_shares(accuracy, correlation, e)

    def paint(fig: Drawing) -> None:
        axes = fig.subplots()
        bars = axes.bar(list(shares), list(shares.values()), color=["C0", "C1", "C2"], hatch=HATCHES, edgecolor="white")
        axes.bar_label(bars, [f"{share:.0%}" for share in shares.values()])
        axes.set(ylabel="share of cases", ylim=(0, 1.08))

    said = ", ".join(f"{share:.0%} {name}" for name, share in shares.items())
    alt = f"Dialled panel of {e} doctors, each {accuracy:.0%} right, errors correlated {correlation:.2f}: {said}."
    return draw(paint, pd.DataFrame({"share": shares}), (4.8, 3.4)), alt


def bucket_explorer() -> None:
    """Sliders: accuracy of a doctor, correlation of errors, number of doctors (the paper: 67 / 11 / 21 %)."""
    import ipywidgets

    accuracy = ipywidgets.FloatSlider(value=0.75, min=0.0, max=1.0, step=0.05)
    correlation = ipywidgets.FloatSlider(value=0.2, min=0.0, max=1.0, step=0.05)
    explore(bucket_figure, accuracy=accuracy, correlation=correlation, e=ipywidgets.IntSlider(value=3, min=1, max=7))


# What every notebook shows besides its figures
def show_table(frame: pd.DataFrame, caption: str, index: bool = True) -> None:
    """A table under its caption, as HTML; text of any length is shown whole, numbers as ``plots.number`` writes them."""
    with pd.option_context("display.max_colwidth", None):
        body = frame.to_html(index=index, border=0, float_format=number, na_rep="", justify="left")
    body = re.sub(r"<td>(?=[^<&]*[A-Za-z]{2})", '<td style="text-align: left">', body)  # JupyterLab sets words too flush right
    show(body.replace("<thead>", f"<caption>{html.escape(caption)}</caption><thead>", 1), caption)


def by_difficulty(rows: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One line a system (name -> Result rows): accuracy on all cases and each bucket, flips of unanimous panels, share without answer."""
    lines: dict[str, dict[str, Any]] = {}
    for name, frame in rows.items():
        parts = {"all": frame, **{level: frame[frame["difficulty"] == level] for level in BUCKETS}}
        told, flips = {key: evaluation.share_right(part) for key, part in parts.items()}, evaluation.flip_rate(frame)
        sides = ("panel_right", "panel_wrong")
        told |= {f"flips, {s.replace('_', ' ')}": evaluation.with_interval(flips[s], flips[f"{s}_ci"]) for s in sides}
        lines[name] = {**told, "no answer": (frame["option"] < 0).mean()}
    return pd.DataFrame(lines).T


def by_group(rows: Mapping[str, pd.DataFrame], column: str) -> pd.DataFrame:
    """One line a value of ``column``, buckets in their order: accuracy of each system, and the first one's paired gain over the second."""
    lines: dict[str, dict[str, Any]] = {}
    for group in BUCKETS if column == "difficulty" else sorted(next(iter(rows.values()))[column].unique()):
        part = {name: frame[frame[column] == group] for name, frame in rows.items()}
        first, second, *_ = part.values()
        lines[group] = {
            **{name: evaluation.share_right(frame) for name, frame in part.items()},
            "gain": evaluation.signed(difference(first, second)),
            "n": len(first),
        }
    return pd.DataFrame(lines).T


def by_marker(cases: Sequence[Case]) -> dict[str, str]:
    """case_id -> "marked" or "not marked", in order of the cases; {}, and a line that says so, where none bears the clinic's marker."""
    kinds = {case.case_id: "marked" if case.meta.get("marked") else "not marked" for case in cases}
    if "marked" in kinds.values():
        return kinds
    print("These cases bear no marker: there is nothing to split by.")
    return {}


def whole_log(stages: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[pd.DataFrame, dict[str, int]]:
    """Logs of stages in order, steps counted through, with the mean reward; and the first step of each, for ``training_curves``."""
    parts = [pd.DataFrame(log) for log in stages.values()]
    log = pd.concat(parts, ignore_index=True)
    log = log.assign(step=np.arange(1, len(log) + 1), reward=log["format"] + log["accuracy"])
    return log, dict(zip(stages, np.cumsum([1, *map(len, parts[:-1])]).tolist(), strict=True))


def reveal(guess: float | None, value: float, what: str) -> None:
    """The end of a 'Predict first': the learner's number against the run's, as HTML."""
    said = "You committed no number." if guess is None else f"You said {guess:g}, that is off by {abs(guess - value):.3g}."
    if np.isnan(value):
        show(f"<p>These cases hold nothing to count it by: {html.escape(what)}.</p>", what)
        return
    show(f"<p>{html.escape(said)} Counted: <b>{value:.3g}</b> ({html.escape(what)}).</p>", what)


def says_did_saw(rows: Sequence[tuple[str, str, str]]) -> None:
    """What the paper says, what we did, what we saw: one row a point, the last column written from the run's numbers."""
    show_table(pd.DataFrame(list(rows), columns=["the paper says", "we did", "we saw"]), "Paper against kit.", index=False)


def four_cases(cases: Sequence[Case], options: np.ndarray) -> dict[str, int]:
    """Index of the four cases that the notebooks follow, of those kinds that there are; options (n, 3): the panel's answers.

    The first case of more than two options (of any, where those do not suffice) that is easy, that splits the panel, and that has a
    unanimous, wrong panel. 'mislabelled' is the next easy one: its label is right, and the notebooks flip it to show what a wrong label
    does (simulated).
    """
    levels, choice = bucket(options, np.array([c.answer for c in cases])), np.array([len(c.options) > 2 for c in cases])
    agreed = (options == options[:, :1]).all(axis=1) & (options[:, 0] >= 0)
    for allowed in (choice, np.full(len(cases), True)):  # a set of yes/no questions alone has its four cases too
        easy, split = (np.flatnonzero(allowed & (levels == level)) for level in ("easy", "medium"))
        wrong = np.flatnonzero(allowed & agreed & (levels == "hard"))
        kinds = {"easy": easy[:1], "split": split[:1], "unanimous and wrong": wrong[:1], "mislabelled": easy[1:2]}
        if all(map(len, kinds.values())):
            break
    else:
        print(f"Of the four cases these hold none that is {', '.join(name for name, at in kinds.items() if not len(at))}.")
    return {name: int(at[0]) for name, at in kinds.items() if len(at)}


def picture_url(picture: Any, lossless: bool = False) -> str:
    """A PIL picture as a data URL: as JPEG, to stay small, or as PNG."""
    how: dict[str, Any] = {"format": "PNG", "optimize": True} if lossless else {"format": "JPEG", "quality": 92, "subsampling": 0}
    picture.save(content := io.BytesIO(), **how)
    return f"data:image/{how['format'].lower()};base64,{base64.b64encode(content.getvalue()).decode()}"


def case_cards(pictures: Sequence[Any], titles: Sequence[str], lines: Sequence[Sequence[str]]) -> tuple[str, str]:
    """HTML cards: picture (PIL, enlarged, stored as JPEG to stay small), title, lines of text. For ``plots.show``."""
    cards = []
    for picture, title, said in zip(pictures, titles, lines, strict=True):
        text = "".join(f"<br>{html.escape(line)}" for line in said)
        image = f'<img alt="picture, {html.escape(title)}" width="128" src="{picture_url(picture)}">'
        cards.append(f'<figure style="width:165px;margin:4px;font-size:12px">{image}<figcaption><b>{html.escape(title)}</b>{text}'
                     "</figcaption></figure>")  # fmt: skip
    alt = "; ".join(f"{title}: {', '.join(said)}" for title, said in zip(titles, lines, strict=True))
    return f'<div style="display:flex;flex-wrap:wrap">{"".join(cards)}</div>', f"{len(cards)} cases. {alt}."


def order_strip(orders: Mapping[str, Sequence[str]]) -> tuple[Drawing, str]:
    """The bucket of each visit, first to last; orders: name -> buckets in the order of the visits."""
    counts = {name: [list(order).count(level) for level in BUCKETS] for name, order in orders.items()}
    table = pd.DataFrame(counts, index=list(BUCKETS)).T

    def paint(fig: Drawing) -> None:
        panes = fig.subplots(len(orders), 1, squeeze=False, sharex=True).ravel()
        for axes, (name, order) in zip(panes, orders.items(), strict=True):
            for i, level in enumerate(BUCKETS):
                at = np.flatnonzero(np.array(order) == level)
                axes.vlines(at, i, i + 0.9, color=f"C{i}", linewidth=1.4)
            axes.set_yticks(np.arange(3) + 0.45, BUCKETS)
            axes.set(ylim=(3, 0))
            axes.set_title(name)
            axes.grid(False)
        panes[-1].set_xlabel("visit")

    changes = {name: sum(a != b for a, b in zip(order, order[1:], strict=False)) for name, order in orders.items()}
    said = "; ".join(f"{name}: the bucket changes {count} times" for name, count in changes.items())
    return draw(paint, table, (7.0, 1.3 * len(orders) + 0.4)), f"Bucket of each visit in order. {said}."


def bands_figure(bands: Mapping[str, Mapping[str, Any]], mine: Mapping[str, float]) -> tuple[Drawing, str]:
    """Each band on an axis of its own, with its seeds and, if in ``mine``, this run; controls lie far outside, named. bands: bands.json."""
    table = pd.DataFrame(bands).T[["low", "high", "sd"]].astype(float).assign(this_run=pd.Series(mine, dtype=float))

    def paint(fig: Drawing) -> None:
        panes = fig.subplots(len(bands), 1, squeeze=False).ravel()
        for axes, (name, band) in zip(panes, bands.items(), strict=True):
            own = [mine[name]] if name in mine else []
            shown = [band["low"], band["high"], *own, *band["seeds"].values()]
            room = 0.15 * (max(shown) - min(shown))
            axes.axvspan(band["low"], band["high"], facecolor=("C5", 0.35), edgecolor="C5", label="band")
            axes.plot([*band["seeds"].values()], [0.35] * len(band["seeds"]), "|", color="C0", markersize=12, label="seeds")
            axes.plot(own, [0.7] * len(own), "D", color="black", markersize=5, label="this run" if own else None)
            axes.set(xlim=(min(shown) - room, max(shown) + room), ylim=(0, 1), yticks=[])
            axes.ticklabel_format(useOffset=False)
            axes.set_title(name)
            outside = ", ".join(f"{control} {value:.3f}" for control, value in band["control"].items())
            axes.set_title(f"controls: {outside}", loc="right", fontsize=9)
        panes[-1].set_xlabel("share of test cases, each axis on a scale of its own")
        fig.legend(*panes[0].get_legend_handles_labels(), ncols=3, loc="outside upper center")

    said = "; ".join(
        f"{name} [{b['low']:.3f}, {b['high']:.3f}], " + (f"this run {mine[name]:.3f}, " if name in mine else "") + "controls "
        + ", ".join(f"{control} {value:.3f}" for control, value in b["control"].items()) for name, b in bands.items()
    )  # fmt: skip
    return draw(paint, table, (7.2, 0.85 * len(bands) + 0.9)), f"Bands of the seeds, each on its own axis: {said}."

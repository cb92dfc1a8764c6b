"""The training view: what a step log says up to one of its steps, in place while a notebook trains, and with a slider afterwards.

``view`` is a plain function of the log. ``watch`` shows it while a cell trains and ``replay`` over a stored run; both read the files that
the trainer writes (``steps.jsonl``, one row a step, and ``rollouts.jsonl``), so that it does not matter which process trains.
"""

from __future__ import annotations

import contextlib
import math
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextvars import copy_context
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from mmedlite import health
from mmedlite.plots import Drawing, draw, png, show
from mmedlite.profiles import InputError
from mmedlite.run_folder import RunFolder, groups_of, read_rows
from mmedlite.widgets import show_table

Rows = Sequence[Mapping[str, Any]]
FIRST, LEAST, SHARE = 20.0, 3.0, 0.015  # seconds to the first drawing and between two at least; share of the time that all may take
TAIL = 2**18  # bytes at the end of rollouts.jsonl, in which the rollouts of the last step lie
NOTHING = "No step is trained yet."
PANES = {  # name of a pane: its lines, and the coefficient on its second axis
    "reward": (("reward", "format", "accuracy"), ""),
    "entropy": (("entropy",), "gamma"),
    "KL": (("kl",), "beta"),
    "equal groups": (("equal_groups",), ""),
}
LOOKS = {  # colour, line and marker of each line
    "reward": ("C0", "-", "o"), "format": ("C1", "--", "s"), "accuracy": ("C2", ":", "D"), "entropy": ("C3", "-", "o"),
    "kl": ("C0", "-", "o"), "equal_groups": ("C2", "-", "o"),
}  # fmt: skip


def _is_at(row: Mapping[str, Any], rollout: Mapping[str, Any]) -> bool:
    """Is a rollout of the step of a log row? The log counts from 1, rollouts from 0."""
    return bool((row["stage"], row["step"]) == (rollout["stage"], rollout["step"] + 1))


def told(log: Rows, step: int, rollouts: Rows = ()) -> list[str]:
    """What :func:`view` says in words: place and time left, the numbers of the step, one rollout, each verdict that is not normal."""
    now = log[step - 1]
    part = [{k: math.nan if v is None else v for k, v in row.items()} for row in log[:step] if row["stage"] == now["stage"]]
    of = now.get("steps") or sum(row["stage"] == now["stage"] for row in log)
    times = [row["time"] for row in part if "time" in row]
    pace = median(b - a for a, b in zip(times, times[1:], strict=False)) if len(times) > 1 else 0.0  # a stop in between is no pace
    left = round(pace * (of - now["step"]))
    last = part[-1]
    sampled = next((r for r in rollouts if _is_at(now, r)), None)
    text = textwrap.shorten(str(sampled["text"] if sampled else now["sample"]), 240, placeholder=" ...")
    earned = f" earned format {sampled['format']:g}, accuracy {sampled['accuracy']:g}, advantage {sampled['advantage']:+.2f}" if sampled else ""
    return [
        f"Stage {now['stage']}, step {now['step']} of {of}" + (f", {left // 60} min {left % 60:02} s left in it." if left > 0 else "."),
        f"Reward {last['format'] + last['accuracy']:.3f} = format {last['format']:.3f} + accuracy {last['accuracy']:.3f}; "
        f"entropy {last['entropy']:.4f} nats at gamma {last['gamma']:.4g}; KL {last['kl']:.4f} nats at beta {last['beta']:.4g}; "
        f"equal groups {last['equal_groups']:.0%}.",
        f"Sampled: {text}{earned}.",
        *(f"{v.state.capitalize()}, {v.signal}: {v.reason}." for v in health.verdicts(part) if v.state != "normal"),
    ]


def view(log: Rows, step: int, rollouts: Rows = ()) -> tuple[Drawing, str]:
    """Curves of a log up to ``step`` (1 to len(log), stages counted through), and in words what :func:`told` says of that step.

    Args:
        log: rows of :func:`grpo.train`, of several stages in order; rows of steps.jsonl also bear the steps of the stage and the time.
            None, which is how a run's JSON writes a nan, leaves a gap. An empty log is drawn as such, at any step.
        rollouts: rows of rollouts.jsonl, of which the first of the step is shown with its reward; without it the log's own sample.

    Raises:
        InputError: there is no such step.
    """
    if not log:
        return draw(lambda fig: fig.text(0.01, 0.3, NOTHING), pd.DataFrame(), (7.6, 0.5)), NOTHING
    if not 1 <= step <= len(log):
        raise InputError(f"step {step} of a log of {len(log)} steps", "live.view", f"name a step from 1 to {len(log)}")
    names = ["format", "accuracy", "entropy", "gamma", "kl", "beta", "equal_groups"]
    seen = pd.DataFrame(log[:step])[names].astype(float)
    seen.insert(0, "reward", seen["format"] + seen["accuracy"])
    seen.insert(0, "stage", [row["stage"] for row in log[:step]])
    seen.index = pd.RangeIndex(1, step + 1, name="step")
    starts = [n for n in range(2, step + 1) if log[n - 1]["stage"] != log[n - 2]["stage"]]
    lines = told(log, step, rollouts)
    wrapped = [part for line in lines for part in textwrap.wrap(line, 130)]
    height = 2.05 + 0.15 * len(wrapped)  # inches

    def paint(fig: Drawing) -> None:
        smooth = seen.drop(columns="stage").rolling(max(1, step // 15), min_periods=1).mean()
        applied = seen.groupby("stage")[["gamma", "beta"]].transform("mean")  # a stage that mixes buckets mixes their coefficients
        fig.set_layout_engine("none")  # a layout sought anew would take a third of the drawing's time
        room = {"left": 0.035, "right": 0.985, "wspace": 0.6, "top": 1 - 0.25 / height, "bottom": 1 - 1.75 / height}
        for axes, (title, (drawn, coefficient)) in zip(fig.subplots(1, 4, gridspec_kw=room), PANES.items(), strict=True):
            if coefficient:
                beside = axes.twinx()
                beside.plot(seen.index, applied[coefficient], "--", drawstyle="steps-mid", color="0.35", lw=1.1)
                beside.set(ylim=(0, 1.1 * (applied[coefficient].max() or 1)))
                beside.set_title(f"- - {coefficient}", loc="right", fontsize=8)
                beside.grid(False)
            for name in drawn:
                colour, line, marker = LOOKS[name]
                axes.plot(seen.index, seen[name], "-", color="0.75", lw=0.6, antialiased=False)  # few shades: a small file
                axes.plot(seen.index, smooth[name], line, color=colour, label=name, lw=1.4)
                axes.plot(step, seen[name].iloc[-1], marker, color=colour, markersize=5, clip_on=False)
            if len(drawn) > 1:
                axes.legend(fontsize=7, loc="lower right", labelspacing=0.1, borderpad=0)
            for start in starts:
                axes.axvline(start - 0.5, color="0.6", linestyle=":", linewidth=1)
            axes.set_title(title, fontsize=9)
            axes.set(xlim=(0.5, max(step, 9) + 0.5), ylim=(0, None), xticks=sorted({1, step}))
        for axes in fig.axes:
            axes.tick_params(labelsize=7)
            axes.locator_params(axis="y", nbins=4)
            axes.yaxis.set_major_formatter("{x:g}")
        fig.text(0.01, 0.01, "\n".join(wrapped), fontsize=7.5, va="bottom", parse_math=False)

    return draw(paint, seen.iloc[:: -max(1, step // 8)][::-1], (8.0, height)), " ".join(lines)


def steps_of(rows: Rows) -> list[dict[str, Any]]:
    """Rows of steps.jsonl as a log: a step that was trained again, after a stop or a change, takes the place of what began there."""
    log: list[dict[str, Any]] = []
    begins: dict[str, int] = {}
    for row in rows:
        begin = begins.get(row["stage"], len(log))
        at = begin + row["step"] - 1
        begins = {stage: first for stage, first in begins.items() if first < at} | {row["stage"]: begin}
        log[at:] = [dict(row)]
    return log


def recorded(run: RunFolder, name: str, stages: Sequence[str] = ()) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Step log and rollouts of a training of this run ("triage", "diverse", ...), else the reference run's, of which some are kept.

    Args:
        stages: those of the training, in order; () for one without. Only the reference run's log is sought by them.

    Raises:
        InputError: neither run has it.
    """
    folder = run.folder / "rollouts" / name
    if log := steps_of(read_rows(folder / "steps.jsonl")):
        return log, read_rows(folder / "rollouts.jsonl")
    kept = run.reference / "rollouts" / name / "rollouts.jsonl"
    log = [row for part in ([f"{name}/{stage}" for stage in stages] or [name]) for row in run.log(part)]
    return log, read_rows(kept) if run.reference_results() else []


def group_at(rollouts: Rows, row: Mapping[str, Any], group: int) -> pd.DataFrame:
    """The rollouts of one group (1, 2, ...) of the step of a log row, in the order sampled; empty where it is not stored."""
    frame = pd.DataFrame([r for r in rollouts if _is_at(row, r)])
    if frame.empty:
        return frame
    return frame[groups_of(frame) == group]


def replay(log: Rows, rollouts: Rows = ()) -> None:
    """A slider over the steps of a stored training, and one over the groups of the step where its rollouts are stored: text, reward,
    advantage, and the log-probability under the policy and the reference (nats a token, mean)."""
    import ipywidgets

    if not log:
        show(*view(log, 0))
        return

    def shown(step: int, group: int = 1) -> None:
        show(*view(log, step, rollouts))
        if len(found := group_at(rollouts, log[step - 1], group)):
            first = found.iloc[0]
            title = f"Group {group} of this step: case {first['case_id']}, gamma {first['gamma']:g}, beta {first['beta']:g}."
            show_table(found[["text", "format", "accuracy", "advantage", "logp", "logp_reference"]], title, index=False)
        elif rollouts:
            show(f"<p>The rollouts of group {group} of step {step} are not kept.</p>", "no rollouts of this group")

    dials = {"step": ipywidgets.IntSlider(value=len(log), min=1, max=len(log), continuous_update=False)}
    if groups := max(Counter((r["stage"], r["step"]) for r in rollouts if r["sample_index"] == 0).values(), default=0):
        dials["group"] = ipywidgets.IntSlider(value=1, min=1, max=groups, continuous_update=False)
    shown(**{name: dial.value for name, dial in dials.items()})
    ipywidgets.interact(lambda **values: shown(**values), **dials)  # of `shown` itself, interact would make a dial of group's default too


def _look(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The log of a training as it stands, and the rollouts of its last steps."""
    return steps_of(read_rows(folder / "steps.jsonl")), read_rows(folder / "rollouts.jsonl", TAIL)


def _refresh(boards: Mapping[Path, Any], stop: threading.Event, spent: list[float]) -> None:
    """Draw each board anew when its training has gone on; the drawings so far and the next one stay within ``SHARE`` of the time."""
    from IPython.display import Image

    drawn, began, pause = dict[Path, int](), time.monotonic(), FIRST
    while not stop.wait(pause):
        before = time.thread_time()
        for folder, board in boards.items():
            log, rollouts = _look(folder)
            if len(log) != drawn.get(folder, 0):
                drawn[folder] = len(log)
                fig, alt = view(log, len(log), rollouts)
                board.update(Image(data=png(fig, alt), format="png", alt=alt))
        spent.append(time.thread_time() - before)
        pause = max(LEAST, (sum(spent) + max(spent)) / SHARE - (time.monotonic() - began))


@contextlib.contextmanager
def watch(run: RunFolder, *names: str) -> Iterator[list[float]]:
    """While the block trains, show the :func:`view` of each named training in a notebook, in place; outside a notebook nothing.

    When the block ends, however it ends, the last state stays in words; ``replay`` draws it. The block is given the CPU seconds that
    each drawing took.
    """
    from IPython import get_ipython
    from IPython.display import HTML, display

    spent: list[float] = []
    if getattr(get_ipython(), "kernel", None) is None:
        yield spent
        return
    boards = {run.folder / "rollouts" / name: display(HTML(f"<p>{escape(name)}: {NOTHING}</p>"), display_id=True) for name in names}
    stop = threading.Event()
    drawer = threading.Thread(target=copy_context().run, args=(_refresh, boards, stop, spent), daemon=True)  # it draws into this cell
    drawer.start()
    try:
        yield spent
    finally:
        stop.set()
        drawer.join()
        for folder, board in boards.items():
            log, rollouts = _look(folder)
            lines = told(log, len(log), rollouts) if log else [NOTHING]
            board.update(HTML(f"<p>{escape(folder.name)}: {'<br>'.join(map(escape, lines))}</p>"))

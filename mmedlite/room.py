"""The room is the experiment: each learner runs another world, shares 2 KB of it, and the room's dots show what one run could not.

A share is a file that its learner puts into a folder: no accounts, no telemetry, no names. ``python -m mmedlite {seat,share,pool}``.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from mmedlite.checks import read_bands
from mmedlite.plots import MARKERS, Drawing, draw, png
from mmedlite.profiles import InputError
from mmedlite.report import table

RIVAL = "majority_vote"
SEEDS = (1, 5, 30)  # of which the room says what they would have concluded
FEW = 150  # test cases of the paper's smallest set, MMMU-Med
SAME = ("config_sha256", "code", "policy")  # what two runs must have in common to be one experiment
RENEW = """<p><label><input type="checkbox" id="renew" checked> read this page again every ten seconds</label></p>
<script>setInterval(() => { if (document.getElementById("renew").checked) location.reload(); }, 10000)</script>"""  # who reads can stop it
LARGEST = 2048  # bytes of a share
VERDICTS = ("beats the vote", "is not told apart from it", "loses to it")


def world_of(code: str, seat: int) -> int:
    """The world of a seat in a class, 1 to 999,999: the same on every machine, another for each code and seat."""
    return 1 + int(hashlib.sha256(f"{' '.join(code.casefold().split())} {seat}".encode()).hexdigest()[:8], 16) % 999_999


def seat(code: str, number: int) -> str:
    """What a learner types to run the world of a seat."""
    world = world_of(code, number)
    here = f"data/world-{world}"
    return (
        f"World {world}. Draw it, run it, share it:\n"
        f"    .venv/bin/python -m data_prep phantoms --world {world} --out {here}\n"
        f"    .venv/bin/python -m mmedlite run --cases {here} --seed {world} --out runs/world-{world}\n"
        f"    .venv/bin/python -m mmedlite share runs/world-{world}"
    )


def share(folder: Path, out: Path) -> Path:
    """Write the share of a finished run into ``out``; no text, no picture and no path is in it.

    Raises:
        InputError: the run was not evaluated.
    """
    try:
        facts, results = (json.loads((folder / name).read_text(encoding="utf-8")) for name in ("run.json", "results.json"))
        gains = {panel: {k: round(a["gains"][RIVAL][k], 6) for k in ("mean", "low", "high")} for panel, a in results["attending"].items()}
        panels = {panel: {**{k: a[k] for k in ("n", "trained", RIVAL)}, "gain": gains[panel]} for panel, a in results["attending"].items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"no evaluated run lies here ({type(error).__name__}: {error})"
        raise InputError(what, str(folder), "name the folder of a run that came to its end") from error
    told = {name: facts[name] for name in ("profile", "seed", "cases_sha256", *SAME)} | {"panels": panels}
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"share-{facts['cases_sha256'][:8]}-{facts['seed']}.json"
    file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return file


def read_shares(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The shares of a folder that are one experiment in different worlds, and what was left out, with the reason: one share costs no other.

    Most of them decide which experiment it is.
    """
    found, left_out = list[tuple[str, dict[str, Any]]](), []
    for file in sorted(folder.glob("share-*.json")):
        try:
            told = json.loads(file.read_bytes()[: LARGEST + 1])
            gains = [part["gain"][k] for part in told["panels"].values() for k in ("mean", "low", "high")]
            counts = all(isinstance(part["n"], int) and part["n"] > 0 for part in told["panels"].values())
            numbers = counts and all(isinstance(g, float | int) and -1 <= g <= 1 for g in gains)
            whole = bool(gains) and numbers and {*SAME, "cases_sha256"} <= told.keys()
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            whole = False
        if whole:
            found.append((file.name, told))
        else:
            left_out.append(f"{file.name}: no share, or a damaged one")
    kinds = [tuple(str(told[name]) for name in SAME) + tuple(told["panels"]) for _, told in found]
    kept: dict[str, dict[str, Any]] = {}
    for (name, told), kind in zip(found, kinds, strict=True):
        if kind != max(kinds, key=kinds.count):
            left_out.append(f"{name}: of other settings, code or models than most")
        elif kept.setdefault(str(told["cases_sha256"]), told) is not told:
            left_out.append(f"{name}: its world has been shared already")
    return list(kept.values()), left_out


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of at least two values (Student's t)."""
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


def verdict(low: float, high: float) -> str:
    """What an interval of the gain over the vote says."""
    return VERDICTS[0] if low > 0 else VERDICTS[2] if high < 0 else VERDICTS[1]


def on_fewer(gain: Mapping[str, float], wider: float, rng: np.random.Generator) -> dict[str, float]:
    """A gain as a smaller test set would have shown it: its 95 % interval ``wider`` times as wide, its mean drawn with the added error."""
    half = (gain["high"] - gain["low"]) / 2
    mean = gain["mean"] + rng.normal(0, half * np.sqrt(wider**2 - 1) / norm.ppf(0.975))
    return {"mean": mean, "low": mean - half * wider, "high": mean + half * wider}


def concluded(gains: Sequence[Mapping[str, float]], seeds: int, wider: float = 1, draws: int = 2000, seed: int = 0) -> dict[str, float]:
    """Share of draws of so many runs (with replacement) from the room that would have come to each verdict; ``wider``: see ``on_fewer``.

    One run concludes by the interval over its own images, several by that of their means. More runs than the room has worlds are a
    projection: the same worlds are drawn again, so that they spread less than new ones would.
    """
    rng, counts = np.random.default_rng(seed), dict.fromkeys(VERDICTS, 0)
    for _ in range(draws):
        chosen = [gains[int(i)] for i in rng.integers(0, len(gains), seeds)]
        if wider > 1:
            chosen = [on_fewer(gain, wider, rng) for gain in chosen]
        counts[verdict(*(interval([g["mean"] for g in chosen]) if seeds > 1 else (chosen[0]["low"], chosen[0]["high"])))] += 1
    return {name: n / draws for name, n in counts.items()}


def band(panel: str, config: str) -> tuple[float, float] | None:
    """Gains within which 95 % of further worlds would lie, from the stored ten; None for a panel or settings (hash) without them."""
    trained, rival = (read_bands().get(f"{name}_{panel}") for name in ("last_stage", "vote"))
    if not trained or not rival or trained["config"] != config:
        return None
    gains = np.array([share - rival["seeds"][world] for world, share in trained["seeds"].items()])
    half = t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) * np.sqrt(1 + 1 / len(gains))
    return float(gains.mean() - half), float(gains.mean() + half)


def room(shares: Sequence[Mapping[str, Any]], panel: str) -> tuple[Drawing, str]:
    """One dot a world with its own interval, in the order of the gains; the room's mean and interval; the band of the stored worlds."""
    gains = sorted((s["panels"][panel]["gain"] for s in shares), key=lambda g: float(g["mean"]))
    rows, means = pd.DataFrame(gains, index=[f"world {i + 1}" for i in range(len(gains))]), [float(g["mean"]) for g in gains]
    mean, known = float(np.mean(means)), band(panel, shares[0]["config_sha256"])
    whole = interval(means) if len(means) > 1 else (gains[0]["low"], gains[0]["high"])

    def paint(fig: Drawing) -> None:
        axes = fig.subplots()
        if known:
            axes.axhspan(*known, color="C5", alpha=0.3, linewidth=0, label="further worlds, 95 %")
        axes.axhspan(*whole, facecolor="none", edgecolor="C1", hatch="//", linewidth=0, alpha=0.6, label="mean of the room, 95 %")
        axes.axhline(mean, color="C1")
        axes.axhline(0, color="0.3", linestyle=":")
        x = np.arange(len(rows))
        axes.vlines(x, rows["low"], rows["high"], color="0.6")
        axes.plot(x, means, MARKERS[0], color="C0", label="one world, 95 %")
        axes.set(ylabel="trained policy minus the vote", xlabel="worlds of the room, by gain", xticks=[])
        fig.legend(loc="outside upper center", ncols=3)

    told = f"mean {mean:+.3f} [{whole[0]:+.3f}, {whole[1]:+.3f}], single worlds from {min(means):+.3f} to {max(means):+.3f}"
    inside = sum(known[0] <= m <= known[1] for m in means) if known else 0
    alt = f"Gain of the trained policy over the vote, {panel} panel, {len(means)} worlds: {told}."
    if known:
        alt += f" {inside} of them lie in [{known[0]:+.3f}, {known[1]:+.3f}], where 95 of 100 further worlds should, by ten stored ones of "
        alt += f"{read_bands()[f'vote_{panel}']['n']:,} test cases."
    return draw(paint, rows, (7.2, 4.2)), alt


def page(shares: Sequence[Mapping[str, Any]], left_out: Sequence[str]) -> str:
    """The room as one HTML page that reads itself again every ten seconds; at least one share, and what ``read_shares`` left out.

    Of several runs it speaks from as many worlds on as the least of them, five.
    """
    parts, n = [], len(shares)
    drawn = [k for k in SEEDS if k == 1 or n >= SEEDS[1]]
    names = {k: "1 run" if k == 1 else f"{k} runs" if k <= n else f"{k} runs, projected from {n} worlds" for k in drawn}
    for panel in shares[0]["panels"]:
        figure, alt = room(shares, panel)
        picture = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{base64.b64encode(png(figure, alt)).decode()}">'
        gains = [s["panels"][panel]["gain"] for s in shares]
        tested = int(shares[0]["panels"][panel]["n"])
        rows = [
            (names[k], f"{cases:,}", *(f"{share:.0%}" for share in concluded(gains, k, np.sqrt(tested / cases)).values()))
            for cases in (tested, *[FEW] * (tested > FEW)) for k in drawn
        ]  # fmt: skip
        caption = f"{panel}: what so many runs of this room would have concluded of the trained policy (2,000 draws)."
        if len(rows) > len(drawn):
            caption += f" On {FEW} cases, as many as the paper's smallest set has, it is simulated: the larger error is drawn."
        parts += [f"<h2>{html.escape(panel)}</h2>", picture, f"<p>{html.escape(alt)}</p>"]
        parts.append(table(caption, ("drawn", "test cases", *VERDICTS), rows))
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in left_out)
    head = '<meta charset="utf-8"><title>The room</title><style>img{max-width:100%;height:auto}td{overflow-wrap:anywhere}</style>'
    body = f"<h1>The room: {n} {'world' if n == 1 else 'worlds'}</h1>{RENEW}{''.join(parts)}<ul>{lines}</ul>"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def pool(folder: Path, watch: bool) -> int:
    """Write ``room.html`` into the folder; with ``watch`` again whenever its files change, until Ctrl-C. Returns the exit status."""
    written: list[tuple[str, int]] = []
    try:
        while True:
            files = [(file.name, file.stat().st_mtime_ns) for file in sorted(folder.glob("share-*.json"))]
            if files != written or not watch:
                shares, left_out = read_shares(folder)
                what = f"no usable share among {len(left_out)} files" if left_out else "no file share-*.json"
                if not shares and not watch:
                    raise InputError(what, str(folder), "put the files that `python -m mmedlite share` writes into it")
                if shares:
                    (out := folder / "room.html").write_text(page(shares, left_out), encoding="utf-8")
                    what = f"{out}: {len(files)} files"
                print(what, *left_out, sep="\n", flush=True)  # a share that is still being copied is read when it is whole
                written = files
            if not watch:
                return 0
            time.sleep(2)
    except KeyboardInterrupt:
        return 0

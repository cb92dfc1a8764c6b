"""Does a number lie where other training seeds put it? One stable line a check; the value goes to the run folder.

``artifacts/bands.json`` holds for every name: mean, low, high, sd, seeds {seed: value}, n, direction, source, code,
config, cases_sha256, control {name: value}. Only shares in [0, 1] have bands; a yes/no fact takes ``check``.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmedlite.evaluation import wilson
from mmedlite.profiles import ROOT, InputError

BANDS = ROOT / "artifacts" / "bands.json"
DIRECTIONS = {"higher": (1, 0), "lower": (0, 1), "within": (0, 0)}  # is above / below the band better, hence "watch"?


def band_from_seeds(values: Sequence[float], n: int) -> tuple[float, float]:
    """Mean of the seeds' values +- the larger of 3 sd and the Wilson half-width at n cases, clipped to [0, 1]."""
    if len(values) < 5:
        raise InputError(f"{len(values)} seeds make no band", "checks.band_from_seeds", "train at least 5 seeds")
    mean = float(np.mean(values))
    low, high = wilson(mean * n, n)
    half = max(3 * float(np.std(values, ddof=1)), (high - low) / 2)
    return max(0.0, mean - half), min(1.0, mean + half)


def make_band(
    seeds: Mapping[Any, float], n: int, control: Mapping[str, float], direction: str = "higher", *,
    source: str, code: str, config: str, cases_sha256: str,
) -> dict[str, Any]:  # fmt: skip
    """One entry of bands.json with its provenance; refuses a band that a control (untrained, ...) would not fail."""
    if direction not in DIRECTIONS:
        raise InputError(f"unknown direction '{direction}'", "checks.make_band", f"use one of: {', '.join(DIRECTIONS)}")
    values = list(seeds.values())
    low, high = band_from_seeds(values, n)
    _refuse_controls(control, low, high, direction, n)
    return {
        "mean": float(np.mean(values)), "low": low, "high": high, "sd": float(np.std(values, ddof=1)),
        "seeds": {str(seed): value for seed, value in seeds.items()}, "n": n, "direction": direction, "source": source,
        "code": code, "config": config, "cases_sha256": cases_sha256, "control": dict(control),
    }  # fmt: skip


def _status(value: float, low: float, high: float, direction: str) -> str:
    """PASS inside the band, WATCH on its better side, FAIL elsewhere and for nan."""
    above_is_better, below_is_better = DIRECTIONS[direction]
    better = (value > high and above_is_better) or (value < low and below_is_better)
    return "PASS" if low <= value <= high else "WATCH" if better else "FAIL"


def _refuse_controls(control: Mapping[str, float], low: float, high: float, direction: str, n: int) -> None:
    """InputError where a control would not fail the band."""
    for name, value in control.items():
        if _status(value, low, high, direction) != "FAIL":
            what = f"with {n} cases control '{name}' ({value:.3f}) does not fail the band [{low:.2f}, {high:.2f}]"
            raise InputError(what, "checks", "use more cases, or a quantity that tells the two apart")


def applies(band: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Was this band made with the settings and on the cases of a run? facts: its config_sha256 and cases_sha256."""
    return (band["config"], band["cases_sha256"]) == (facts["config_sha256"], facts["cases_sha256"])


def judged(facts: Mapping[str, Any]) -> bool:
    """Is a run with these facts one that bands were made for, so that no check of it may be left out?"""
    return any(applies(band, facts) for band in read_bands().values())


def read_bands() -> dict[str, dict[str, Any]]:
    """The stored bands by name; none where the file is missing."""
    found: dict[str, dict[str, Any]] = json.loads(BANDS.read_text(encoding="utf-8")) if BANDS.exists() else {}
    return found


def expect(
    name: str, value: float, n: int | None = None, run: str | Path | None = None, facts: Mapping[str, Any] | None = None
) -> None:  # fmt: skip
    """Print PASS, WATCH (better than the band) or FAIL; n: cases measured, run: folder of the run.

    Fewer cases than the band was made for widen it; InputError where that would let a control pass. ``facts`` of a run for which no band
    was made (see ``judged``): a line says so, nothing is compared, and the check is recorded as skipped.
    """
    bands = read_bands()
    if facts and not judged(facts):
        print(f"no band {name}: none was made with these settings and cases")
        _record("SKIPPED", name, run, NOT_JUDGED)
        return
    if name not in bands:
        known = ", ".join(sorted(bands)) or "none yet, run `make artifacts`"
        raise InputError(f"no band named '{name}'", BANDS.name, f"use one of: {known}")
    band = bands[name]
    low, high = band["low"], band["high"]
    if n is not None and n < band["n"]:
        low, high = band_from_seeds(list(band["seeds"].values()), n)
        _refuse_controls(band["control"], low, high, band["direction"], n)
    number = math.nan if value is None else float(value)
    status = _status(number, low, high, band["direction"])
    span = f"[{low:.2f}, {high:.2f}]" if high - low >= 0.01 else f"[{low:.4f}, {high:.4f}]"  # or it would show no width
    line = {
        "PASS": f"within band {span}",
        "WATCH": f"better than band {span}: {number:.4f}. Next: look for a leak before you believe it",
        "FAIL": f"outside band {span}: {number:.4f}. "
        "Next: compare seed, config and data hashes with the band's in artifacts/bands.json, then run the cell again",
    }[status]
    record = {"value": None if math.isnan(number) else number, "band": [low, high], "n": n}
    _report(status, name, line, run, record)


def banded(results: Mapping[str, Any]) -> dict[str, tuple[float, int | None]]:
    """The numbers of results.json that have bands, by the band's name: value and cases measured (None: the band's)."""
    triage = results.get("triage")
    numbers = {"triage_accuracy": (triage["trained"], triage["n"])} if triage else {}
    for panel, found in results.get("attending", {}).items():
        numbers[f"attending_{panel}_trained"] = (found["trained"], found["n"])
        numbers[f"unanimous_{panel}_trained"] = (found["unanimous"]["trained"], None)
    return numbers


def expect_all(results: Mapping[str, Any], facts: Mapping[str, Any], run: str | Path) -> None:
    """``expect`` every number of a run's results.json whose band was made with the same settings and cases."""
    for name, (value, n) in banded(results).items():
        expect(name, value, n, run, facts)


def check(name: str, condition: bool | None, hint: str, run: str | Path | None = None) -> None:
    """Print one PASS or FAIL line for a yes/no fact; ``hint`` names the likely mistake and the next step.

    ``condition`` None: these cases hold nothing to judge it by. A line says so, and the check is recorded as skipped.
    """
    if condition is None:
        print(f"no check {name}: it does not apply, there is nothing in this run to judge it by")
        _record("SKIPPED", name, run, NOT_JUDGED)
        return
    status = "PASS" if condition else "FAIL"
    _report(
        status,
        name,
        "holds" if condition else f"does not hold. Next: {hint}",
        run,
        {"value": bool(condition), "band": None, "n": None},
    )


def assist(name: str, run: str | Path | None = None) -> None:
    """Say and record that a reference stood in for a learner's function: the run is "assisted"."""
    print(f"ASSISTED {name} the stub is still empty, so the reference stands in")
    _record("ASSISTED", name, run, NOT_JUDGED)


def tally(folder: Path) -> list[dict[str, Any]]:
    """The last record of each check of a run folder: name, status ("pass", "watch", "fail", "skipped" or "assisted"), value, band, n."""
    file = folder / "checks.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return list({row["name"]: row for row in map(json.loads, filter(None, lines))}.values())


def count(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """{"passed", "failed", "skipped", "assisted"} of the records of :func:`tally`; "watch" (better than the band) is a pass."""
    failed, skipped, assisted = (sum(row["status"] == status for row in rows) for status in ("fail", "skipped", "assisted"))
    return {"passed": len(rows) - failed - skipped - assisted, "failed": failed, "skipped": skipped, "assisted": assisted}


def told(counted: Mapping[str, int]) -> str:
    """The count in words."""
    rest = "".join(f", {counted[name]} {name}" for name in ("skipped", "assisted") if counted[name])
    return f"{counted['passed']} checks passed, {counted['failed']} failed{rest}"


def _report(status: str, name: str, line: str, run: str | Path | None, record: Mapping[str, Any]) -> None:
    print(f"{status} {name} {line}")
    _record(status, name, run, record)


NOT_JUDGED = {"value": None, "band": None, "n": None}


def _record(status: str, name: str, run: str | Path | None, record: Mapping[str, Any]) -> None:
    """Add the record to checks.jsonl of ``run`` or of the folder that MMEDLITE_RUN names."""
    folder = run or os.environ.get("MMEDLITE_RUN")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with (Path(folder) / "checks.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"name": name, "status": status.lower(), **record}) + "\n")

"""How fast is a store filled from an endpoint, what does it lose when it is killed, and what do a fifth of failed calls cost?

``python -m figures.store_fill [--quick] [--json]``: the real client asks the scripted server of the tests on loopback, which runs as a
process of its own and counts what it was asked. Pictures are the phantoms of ``make data``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from figures._clock import made_from
from mmedlite.asks import Ask
from mmedlite.budget import BudgetReached, Cost
from mmedlite.cases import CaseTable, read_table
from mmedlite.endpoint import EndpointSpecialists
from mmedlite.profiles import ROOT, Endpoint, Model
from mmedlite.specialists import fetch, panel_asks
from mmedlite.store import OpinionStore

OUT = ROOT / "figures" / "data" / "store_fill.json"
MODEL = Model("", {"max_tokens": 40, "temperature": 1.0}, image_tokens=100, input_dollars=2.5, output_dollars=10.0)
PANELS = {"three": ("A", "A", "A")}
TARGET = 0.9  # of the ideal speed


@contextmanager
def serving(latency: float = 0.0, share: float = 0.0, stall: float = 0.0) -> Iterator[Callable[[], dict[str, Any]]]:
    """A scripted server in a process of its own, to which the client's environment points; gives its log since the last look."""
    command = [sys.executable, "-m", "tests.server", "--latency", str(latency), "--share", str(share), "--stall", str(stall)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        address = f"http://127.0.0.1:{process.stdout.readline().strip() if process.stdout else ''}"

        def log() -> dict[str, Any]:
            with urllib.request.urlopen(f"{address}/log") as response:
                found: dict[str, Any] = json.load(response)
            return found

        with patch.dict(os.environ, {"OPENAI_BASE_URL": f"{address}/v1", "OPENAI_API_KEY": "loopback-needs-none"}):
            try:
                yield log
            finally:
                process.terminate()


def specialists(concurrency: int, timeout_s: float = 30.0, limit: tuple[int, int, float] = (0, 0, 0.0)) -> EndpointSpecialists:
    """One model, asked three times a case."""
    return EndpointSpecialists(Endpoint(512, concurrency, timeout_s, 120.0, *limit, {"A": MODEL}), PANELS)


def questions(table: CaseTable, n: int) -> list[Ask]:
    """The first n questions of a table, three a case."""
    cases = table.cases[: -(-n // 3)]
    return panel_asks(cases, [c.specialty or "Radiologist" for c in cases], "three")[:n]


# ---- speed


def speed(table: CaseTable, folder: Path, rounds: int, n: int, concurrency: int = 32, latency: float = 0.2) -> dict[str, Any]:
    """Seconds to fill n answers into an empty store, and the share of the ideal, in which no slot is ever idle."""
    asks, ideal, seconds, at_once = questions(table, n), n * latency / concurrency, [], 0
    with serving(latency) as log:
        for i in range(rounds):
            source, store = specialists(concurrency), OpinionStore(folder / f"speed-{i}")
            start = time.perf_counter()
            fetch(asks, table, store, source)
            seconds.append(time.perf_counter() - start)
            asked = log()
            at_once = max(at_once, asked["most_at_once"])
            if len(asked["asked"]) != n or len(store) != n:
                raise RuntimeError(f"{len(asked['asked'])} requests and {len(store)} answers to {n} questions")
    s = statistics.median(seconds)
    return {"n": rounds, "answers": n, "concurrency": concurrency, "latency_s": latency, "ideal_s": ideal, "s": s, "all_s": seconds,
            "share": ideal / s, "at_once": at_once}  # fmt: skip


# ---- kills


def fill_and_tell(table: CaseTable, asks: Sequence[Ask], folder: Path, concurrency: int, pipe: int) -> None:
    """Fill a store, and write the keys of its answers to a pipe as soon as they are said to be stored. Runs in a process of its own."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # estimates and bars of hundreds of fills
    store = OpinionStore(folder)
    add = store.add

    def told(opinions: Any) -> None:
        opinions = list(opinions)
        add(opinions)
        os.write(pipe, "".join(f"{o['key']}\n" for o in opinions).encode())

    store.add = told  # type: ignore[method-assign]
    fetch(asks, table, store, specialists(concurrency))


def one_fill(*job: Any, kill_after: float | None = None) -> tuple[list[str], float]:
    """Run :func:`fill_and_tell`, to its end or until it is killed: the keys that it told, and its seconds."""
    out, into = os.pipe()
    start = time.perf_counter()
    process = multiprocessing.get_context("fork").Process(target=fill_and_tell, args=(*job, into))  # fork: imports take seconds
    process.start()
    process.join(kill_after)
    process.kill()
    process.join()
    seconds = time.perf_counter() - start
    os.close(into)
    with os.fdopen(out) as told:
        return told.read().split(), seconds


def faults_in(store: OpinionStore, sent: dict[str, dict[str, Any]]) -> int:
    """Stored answers that the server has not sent so, in full."""
    return sum(not (a := sent.get(o["raw"]["id"], {})).get("full") or a["text"] != o["response"] for o in store.values())


def kills(table: CaseTable, folder: Path, times: int, n: int, concurrency: int = 8, latency: float = 0.02) -> dict[str, Any]:
    """SIGKILL at random moments of a fill of n answers, then resume; what was lost, asked again, or taken though torn."""
    asks, draw, count = questions(table, n), random.Random(0), Counter[str]()
    with serving(latency) as log:
        whole = [one_fill(table, asks, folder / f"whole-{i}", concurrency)[1] for i in range(3)]
        log()
        for i in range(times):
            job = (table, asks, folder / f"kill-{i}", concurrency)
            told, _ = one_fill(*job, kill_after=draw.random() * statistics.median(whole))
            found = OpinionStore(folder / f"kill-{i}")
            told_again, _ = one_fill(*job)
            store, asked = OpinionStore(folder / f"kill-{i}"), log()["asked"]
            sent, often = {a["id"]: a for a in asked}, Counter(a["question"] for a in asked)
            acknowledged = set(told)
            again = {o["key"]: often[sent[o["raw"]["id"]]["question"]] - 1 for o in store.values() if o["raw"]["id"] in sent}
            count.update({
                "acknowledged": len(acknowledged), "lost": len(acknowledged - found.places.keys()) + n - len(store),
                "asked_twice": sum(times for k, times in again.items() if k in acknowledged),
                "under_way_asked_again": sum(times for k, times in again.items() if k not in acknowledged),
                "stored_twice": len(acknowledged.intersection(told_again)), "torn_lines": len(found.torn),
                "torn_taken": faults_in(store, sent), "killed_midway": 0 < len(acknowledged) < n,
            })  # fmt: skip
    names = ("acknowledged", "lost", "asked_twice", "under_way_asked_again", "stored_twice", "torn_lines", "torn_taken", "killed_midway")
    return {"n": times, "answers": n, "whole_s": statistics.median(whole), **{name: count[name] for name in names}}


# ---- faults


def faults(
    table: CaseTable, folder: Path, n: int, share: float = 0.2, stall: float = 10.0, timeout_s: float = 2.0, concurrency: int = 32
) -> dict[str, Any]:
    """A fill of n answers while that share of the calls fails, then fills with a budget too small, by the server's own count."""
    asks = questions(table, n)
    with serving(0.02, share, stall) as log:
        source, store = specialists(concurrency, timeout_s, Cost(2 * n, 0, 0.0)), OpinionStore(folder / "faults")
        start = time.perf_counter()
        fetch(asks, table, store, source)
        seconds, asked = time.perf_counter() - start, log()["asked"]
        spent, sent = source.budget.spent, {a["id"]: a for a in asked}
        found = {
            "n": 1, "answers": n, "arrived": len(store), "requests": len(asked), "s": seconds, "stall_s": stall, "timeout_s": timeout_s,
            "faults": dict(sorted(Counter(a["fault"] for a in asked if a["fault"]).items())),
            "faulty_stored": faults_in(store, sent), "failures_stored": len(store.failures),
            "paid_twice": sum(a["full"] for a in asked) - n, "uncounted": max(0, len(asked) - spent.requests),
        }  # fmt: skip
        budgets = []
        for kind in ("requests", "tokens"):
            limit = Cost()._replace(**{kind: getattr(spent, kind) // 3})
            source, store = specialists(concurrency, timeout_s, limit), OpinionStore(folder / f"budget-{kind}")
            try:
                fetch(asks, table, store, source)
                raise RuntimeError(f"a third of what {n} answers took has sufficed")
            except BudgetReached:
                asked = log()["asked"]
            used = len(asked) if kind == "requests" else sum(a["tokens"] for a in asked)
            budgets.append({"kind": kind, "limit": getattr(limit, kind), "server_counted": used, "answers": len(store),
                            "answered_in_full": sum(a["full"] for a in asked)})  # fmt: skip
    return {**found, "budgets": budgets, "exceeded": sum(b["server_counted"] > b["limit"] for b in budgets)}


# ---- all


def measure(table: CaseTable, folder: Path, quick: bool) -> dict[str, Any]:
    """Speed, kills and faults, in stores below ``folder``."""
    return {
        "fill": speed(table, folder, *((1, 960) if quick else (5, 3000))),
        "kills": kills(table, folder, *((10, 60) if quick else (100, 60))),
        "faults": faults(table, folder, 300, stall=3.0, timeout_s=1.0) if quick else faults(table, folder, 3000),
    }


def told(found: dict[str, Any]) -> list[str]:
    """The figures in words, each beside its target."""
    fill, killed, faulty = found["fill"], found["kills"], found["faults"]
    met = "met" if fill["share"] >= TARGET else "MISSED"
    return [
        f"fill {fill['answers']:,} answers, {fill['latency_s']} s each, {fill['concurrency']} at once: {fill['s']:.2f} s, "
        f"{fill['share']:.1%} of the ideal {fill['ideal_s']:.2f} s (target {TARGET:.0%}: {met}), n = {fill['n']}",
        f"{killed['n']} kills of fills of {killed['answers']}: of {killed['acknowledged']:,} acknowledged answers {killed['lost']} lost, "
        f"{killed['asked_twice']} asked twice (target 0); {killed['under_way_asked_again']} under way were asked again; "
        f"{killed['torn_lines']} torn lines, {killed['torn_taken']} taken (target 0)",
        f"{sum(faulty['faults'].values())} of {faulty['requests']:,} calls failed: {faulty['arrived']:,} of {faulty['answers']:,} answers "
        f"arrived in {faulty['s']:.1f} s, {faulty['faulty_stored']} of a faulty reply, {faulty['failures_stored']} failures stored; "
        f"{faulty['exceeded']} of {len(faulty['budgets'])} budgets exceeded (targets 0)",
    ]


def main() -> None:
    """Measure, print each figure beside its target, and store them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer answers and kills, in less than a minute; nothing is stored")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    args = parser.parse_args()
    table = read_table(ROOT / "data" / "phantoms", check_images=False)
    (ROOT / "runs").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "runs") as folder:  # fsync is real on this disk, and may be nothing in memory
        found = {**measure(table, Path(folder), args.quick), "made_from": made_from()}
    print(*told(found), sep="\n")
    if not args.quick:
        OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if args.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()

"""What does it cost to store an answer for good, to find it again, and to open a store? Alternating runs in one process, medians.

``python -m figures.store_speed [--quick] [--json]``: a put of a 1.6 KB answer beside a plain JSON line that is flushed and fsynced; a get
beside diskcache with its default pickle where that is installed (the kit does not need it), and beside a dict of JSON text; opening 100,000
answers, as they were filled and as they are exported, and ``import mmedlite``, in fresh processes. All files lie on the repository's disk.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from figures._clock import made_from
from mmedlite.opinions import SCHEMA, to_line
from mmedlite.profiles import ROOT
from mmedlite.store import OpinionStore
from mmedlite.store_tools import export

OUT = ROOT / "figures" / "data" / "store_speed.json"
BYTES = 1600  # of a stored answer
BATCH = 100
TARGETS = {
    "put_ratio": 1.3, "put_batch_ms": 0.2, "get_ratio": 1.0, "open_s": 1.0, "open_mib": 600 / 1.048576, "import_s": 0.3,
}  # fmt: skip
OPEN = """
import sys, time
from mmedlite.store import OpinionStore
begin = time.perf_counter()
store = OpinionStore(sys.argv[1])
seconds = time.perf_counter() - begin
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(seconds, int(peak) / 1024, len(store))
"""
IMPORT = "import sys, time; begin = time.perf_counter(); import mmedlite; print(time.perf_counter() - begin, int('torch' in sys.modules))"


def answer(index: int) -> dict[str, Any]:
    """An answer of an endpoint whose line has ``BYTES`` bytes."""
    key = hashlib.sha256(str(index).encode()).hexdigest()
    content = [{"type": "image", "sha256": key}, {"type": "text", "text": "What does the picture show? A: yes. B: no. " * 8}]
    sampling = {"temperature": 1.0, "top_p": 0.95, "max_tokens": 300, "seed": index % 3}
    row = {
        "key": key, "schema": SCHEMA, "case_id": f"case-{index}", "department": "Radiologist", "panel": "diverse", "source": "endpoint",
        "request": {
            "model": "gpt-4o", "revision": "2024-08-06", "messages": [{"role": "user", "content": content}], "image_rule": "PNG",
            "sampling": sampling, "template_sha256": key, "sample_index": index % 3,
        },
        "response": "", "raw": {"id": f"chatcmpl-{key[:24]}", "created": 1_700_000_000}, "option": index % 2, "reason": None,
        "finish_reason": "stop", "usage": {"prompt_tokens": 350, "completion_tokens": 60}, "latency_s": 1.25,
        "served_model": "gpt-4o-2024-08-06", "seed": None, "time": 1_700_000_000 + index,
    }  # fmt: skip
    words = "<think>A dense spot near the rim.</think> " * 40
    return {**row, "response": words[: BYTES - len(to_line(row))]}


def alternating(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round; every other round runs them backwards."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        gc.collect()
        for name in list(sides)[:: 1 if number % 2 else -1]:
            begin = time.perf_counter()
            sides[name]()
            found[name].append(time.perf_counter() - begin)
    return found


def ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """Median of the quotients, round by round."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def put(folder: Path, rounds: int, count: int) -> dict[str, Any]:
    """``count`` answers a round beside plain lines that are flushed and fsynced, in turn answer by answer; then a batch."""
    store = OpinionStore(folder / "put")
    store.add([answer(-1)])  # the file is there, as the plain one
    found: dict[str, list[list[float]]] = {"ours": [], "plain": [], "batch": []}
    with (folder / "plain.jsonl").open("w", encoding="utf-8") as plain, store.filling():

        def plain_line(row: dict[str, Any]) -> None:
            plain.write(json.dumps(row, ensure_ascii=False) + "\n")
            plain.flush()
            os.fsync(plain.fileno())

        sides: dict[str, Callable[[dict[str, Any]], None]] = {"ours": lambda row: store.add([row]), "plain": plain_line}
        for number in range(rounds):
            for runs in found.values():
                runs.append([])
            for index in range(count):
                row = answer(number * count + index)
                for name in list(sides)[:: 1 if index % 2 else -1]:
                    begin = time.perf_counter()
                    sides[name](row)
                    found[name][-1].append(time.perf_counter() - begin)
            rows = [answer(10**6 + number * BATCH + index) for index in range(BATCH)]
            begin = time.perf_counter()
            store.add(rows)
            found["batch"][-1].append((time.perf_counter() - begin) / BATCH)
    ms = {name: [1000 * statistics.median(run) for run in runs] for name, runs in found.items()}
    return {
        "n": rounds, "answers_a_round": count, "ms": {name: statistics.median(v) for name, v in ms.items()}, "all_ms": ms,
        "ratio": ratio(ms["ours"], ms["plain"]),
    }  # fmt: skip


def get(folder: Path, rounds: int, count: int) -> dict[str, Any]:
    """``count`` gets a round from a store of as many answers: filled, exported, a dict of JSON text, diskcache if it is installed."""
    rows = [answer(i) for i in range(count)]
    store = OpinionStore(folder / "get")
    store.add(rows)
    store, table = OpinionStore(folder / "get"), OpinionStore(export(store, folder / "exported").parent)
    texts = {row["key"]: json.dumps(row, ensure_ascii=False) for row in rows}
    keys = random.Random(0).sample(list(texts), len(texts))
    sides: dict[str, Callable[[str], Any]] = {"ours": store.get, "exported": table.get, "dict": lambda key: json.loads(texts[key])}
    try:
        import diskcache

        cache = diskcache.Cache(str(folder / "diskcache"), disk=diskcache.Disk)
        for row in rows:
            cache[row["key"]] = row
        sides["diskcache"] = cache.get
    except ImportError:
        print("diskcache is not installed: gets are held beside a dict of JSON text", file=sys.stderr)
    for side in sides.values():
        assert side(keys[0])["key"] == keys[0]

    def all_of(side: Callable[[str], Any]) -> None:
        for key in keys:
            side(key)

    found = alternating({name: partial(all_of, side) for name, side in sides.items()}, rounds)
    us = {name: [1e6 * s / count for s in v] for name, v in found.items()}
    beside = "diskcache" if "diskcache" in sides else "dict"
    return {
        "n": rounds, "gets_a_round": count, "us": {name: statistics.median(v) for name, v in us.items()}, "all_us": us, "beside": beside,
        "ratio": ratio(us["ours"], us[beside]),
    }  # fmt: skip


def _fresh(code: str, *arguments: str) -> list[float]:
    """What a process of its own prints."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def opening(folder: Path, rounds: int, count: int) -> dict[str, Any]:
    """Seconds and peak memory (MiB) of a fresh process that opens ``count`` answers, by form of the store."""
    store = OpinionStore(folder / "open")
    for begin in range(0, count, 1000):
        store.add(answer(i) for i in range(begin, min(begin + 1000, count)))
    export(store, folder / "open_exported")
    size = sum(f.stat().st_size for f in store.shards())
    del store
    found: dict[str, Any] = {"n": rounds, "answers": count, "bytes_an_answer": round(size / count)}
    seen: dict[str, list[list[float]]] = {"filled": [], "exported": []}
    for _ in range(rounds):
        for form, runs in seen.items():
            runs.append(_fresh(OPEN, str(folder / ("open" if form == "filled" else "open_exported"))))
    for form, runs in seen.items():
        assert {number for *_, number in runs} == {count}
        seconds, peak = [r[0] for r in runs], [r[1] for r in runs]
        found[form] = {"s": statistics.median(seconds), "mib": statistics.median(peak), "all_s": seconds, "all_mib": peak}
    return found


def importing(rounds: int) -> dict[str, Any]:
    """Seconds that ``import mmedlite`` takes in a fresh process."""
    runs = [_fresh(IMPORT) for _ in range(rounds)]
    return {"n": rounds, "s": statistics.median(r[0] for r in runs), "all_s": [r[0] for r in runs], "torch": any(r[1] for r in runs)}


def measure(folder: Path, rounds: int, puts: int, gets: int, stored: int) -> dict[str, Any]:
    """All of it, in files below ``folder``."""
    return {
        "put": put(folder, rounds, puts), "get": get(folder, rounds, gets), "open": opening(folder, rounds, stored),
        "import": importing(rounds),
    }  # fmt: skip


def told(found: dict[str, Any]) -> tuple[dict[str, float], list[str]]:
    """The figures that have a target, and all of them in words."""
    puts, gets, opened = found["put"], found["get"], found["open"]
    figures = {
        "put_ratio": puts["ratio"], "put_batch_ms": puts["ms"]["batch"], "get_ratio": gets["ratio"], "open_s": opened["filled"]["s"],
        "open_mib": opened["filled"]["mib"], "import_s": found["import"]["s"],
    }  # fmt: skip

    def mark(name: str) -> str:
        return f"(target {TARGETS[name]:.3g}: {'met' if figures[name] <= TARGETS[name] else 'MISSED'})"

    form = opened["exported"]
    others = ", ".join(f"{name} {us:.1f} us" for name, us in gets["us"].items() if name != "ours")
    return figures, [
        f"put, one by one: {puts['ms']['ours']:.2f} ms, plain line with fsync {puts['ms']['plain']:.2f} ms, "
        f"{puts['ratio']:.2f} times {mark('put_ratio')}, n = {puts['n']} rounds of {puts['answers_a_round']}",
        f"put, in batches of {BATCH}: {puts['ms']['batch']:.3f} ms an answer {mark('put_batch_ms')}, n = {puts['n']}",
        f"get: {gets['us']['ours']:.1f} us, {others}; {gets['ratio']:.2f} times {gets['beside']} {mark('get_ratio')}, n = {gets['n']}",
        f"open {opened['answers']:,} answers of {opened['bytes_an_answer']} bytes: {opened['filled']['s']:.2f} s {mark('open_s')}, "
        f"{opened['filled']['mib']:.0f} MiB {mark('open_mib')}; exported {form['s']:.2f} s, {form['mib']:.0f} MiB, n = {opened['n']}",
        f"import mmedlite: {found['import']['s']:.3f} s {mark('import_s')}, "
        f"{'with' if found['import']['torch'] else 'without'} torch, n = {found['import']['n']}",
    ]


def main() -> None:
    """Measure, print each figure beside its target, and store them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three rounds of little; nothing is stored")
    parser.add_argument("--json", action="store_true", help="print the figures that have a target as one JSON line")
    args = parser.parse_args()
    (ROOT / "runs").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "runs") as folder:  # fsync is real on this disk, and may be nothing in memory
        found = measure(Path(folder), *((3, 20, 500, 5_000) if args.quick else (9, 100, 10_000, 100_000)))
    figures, lines = told(found)
    print(*lines, sep="\n")
    if not args.quick:
        OUT.write_text(json.dumps({**found, "made_from": made_from()}, indent=1) + "\n", encoding="utf-8")
    if args.json:
        print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()

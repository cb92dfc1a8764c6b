"""Demo: execute the seven notebooks in order, watch time and memory, close with the verdict of their checks.

A run cut short (Ctrl-C, a kill, a cell that raised) goes on where it stopped: the next call takes up its run folder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import sys
import threading
import time
from pathlib import Path
from queue import Empty
from typing import Any

import psutil
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.manager import AsyncKernelManager

from mmedlite.checks import count, judged, tally, told
from mmedlite.profiles import ROOT, InputError, load_profile

NOTEBOOKS = (
    "00_start_here",
    "01_specialist_responses",
    "02_triage_grpo",
    "03_curriculum_buckets",
    "04_attending_entropy",
    "05_evaluation",
    "06_verify_results",
)
GIB = 1024**3


class PeakMemory:
    """Context manager: the largest resident memory (GiB) of this process and all below it, sampled twice a second."""

    def __enter__(self) -> PeakMemory:
        self.gib = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(0.5):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.gib = max(self.gib, total / GIB)


class PatientChannel(AsyncZMQSocketChannel):
    """A shell channel that looks again each second.

    nbclient answers an Output widget on the channel on which it awaits the cell's reply. If the reply arrives at that
    moment, its wake-up is lost and the plain channel waits for ever (nbclient issue 312).
    """

    async def get_msg(self, timeout: float | None = None) -> dict[str, Any]:  # type: ignore[override]
        """The next message; raises Empty after ``timeout`` seconds (none: waits as long as it takes)."""
        until = float("inf") if timeout is None else time.monotonic() + timeout
        while True:
            left = until - time.monotonic()
            try:
                message: dict[str, Any] = await super().get_msg(max(0.0, min(1.0, left)))
                return message
            except Empty:
                if left <= 1.0:
                    raise


class PatientKernelManager(AsyncKernelManager):
    """Starts kernels whose clients use the patient channel; for papermill's and nbclient's `kernel_manager_class`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(transport_encryption="auto", **kwargs)  # else each kernel warns of plain text on the terminal

    def client(self, **kwargs: Any) -> Any:
        """A client of the kernel."""
        client = super().client(**kwargs)
        client.shell_channel_class = PatientChannel
        return client


def cpu_minutes() -> float:
    """Processor time so far of this process and of the kernels that it has closed."""
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses) / 60


def package_sha256() -> str:
    """Hash of the package's sources: a run cut short is taken up only by the code that began it."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "mmedlite").rglob("*")):
        if path.suffix in {".py", ".toml"}:
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def open_run(profile: str, cases: str = "", copies: str = "") -> tuple[Path, dict[str, Any]]:
    """The run folder to write and its state: the unfinished latest one of the same profile, cases, copies and code, else a new one."""
    latest, code = ROOT / "runs" / "latest", package_sha256()
    if (latest / "demo.json").is_file():
        state = json.loads((latest / "demo.json").read_text(encoding="utf-8"))
        if not state["finished"] and [state.get(k) for k in ("profile", "cases", "copies", "code")] == [profile, cases, copies, code]:
            return latest.resolve(), state
    run = ROOT / "runs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{Path(profile).stem}"
    (run / "notebooks").mkdir(parents=True)
    latest.unlink(missing_ok=True)
    latest.symlink_to(run.name)
    return run, {"profile": profile, "cases": cases, "copies": copies, "code": code, "finished": False, "notebooks": {}}


def save(path: Path, content: dict[str, Any]) -> None:
    """Write JSON in one step, so that a kill never leaves half a file."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def execute(name: str, run: Path, title: str, copies: str = "") -> str:
    """Execute one notebook, or its copy of ``notebooks/<copies>``, into the run folder; returns what went wrong ("" = nothing)."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    source, target = (os.path.relpath(folder / f"{name}.ipynb") for folder in (ROOT / "notebooks" / copies, run / "notebooks"))
    try:
        papermill.execute_notebook(
            source,
            target,
            cwd=str(ROOT / "notebooks" / copies),
            kernel_name="python3",
            kernel_manager_class=PatientKernelManager,
            progress_bar={"desc": title, "leave": False, "disable": not sys.stderr.isatty()},
        )
    except PapermillExecutionError as error:
        return f"code cell [{error.exec_count}] raised {error.ename}: {error.evalue}"
    except Exception as error:  # a kernel killed for memory, a notebook that cannot be read: each is one failed notebook
        return f"{type(error).__name__}: {error}"
    return ""


def main(argv: list[str] | None = None) -> int:
    """Run the demo; 0 if every check passed, 1 if one failed or a notebook raised, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m mmedlite.demo", description=__doc__)
    parser.add_argument("--profile", default="tiny", help="a name in mmedlite/profiles, or a .toml file")
    own = os.environ.get("MMEDLITE_CASES", "")
    parser.add_argument("--cases", default=own, help="a case table (folder or Parquet file) instead of the profile's own")
    parser.add_argument("--copies", default="", choices=("student", "instructor"), help="run these copies; references stand in for empty stubs")
    args = parser.parse_args(argv)
    profile, cases = args.profile, args.cases and str(Path(args.cases).resolve())  # the kernels run in notebooks/
    try:
        world = load_profile(profile)
    except InputError as error:
        print(error)
        return 1
    if profile.endswith(".toml"):
        profile = str(Path(profile).resolve())
    again = f"make demo PROFILE={profile}" + "".join(f" {k}={v}" for k, v in (("CASES", cases), ("COPIES", args.copies)) if v)

    timings = ROOT / "artifacts" / "timings.json"
    known = json.loads(timings.read_text(encoding="utf-8")) if timings.is_file() else {}
    expected = {name: part["minutes"] for name, part in known.get(world.name, {}).items()}
    run, state = open_run(profile, cases, args.copies)
    save(run / "demo.json", state)
    os.environ |= {"MMEDLITE_PROFILE": profile, "MMEDLITE_CASES": cases, "MMEDLITE_RUN": str(run)}
    for key, value in {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}.items():
        os.environ.setdefault(key, value)
    print(f"Run folder: {os.path.relpath(run, ROOT)} (also runs/latest)")

    done, problem = state["notebooks"], ""
    for i, name in enumerate(NOTEBOOKS):
        title = f"[{i + 1}/{len(NOTEBOOKS)}] {name}"
        if name in done:
            print(f"{title}: done before, {done[name]['minutes']:.1f} min")
            continue
        left = sum(expected.get(later, 0.0) for later in NOTEBOOKS[i:])
        title += f", about {left:.0f} min left" if expected else ""
        print(f"{title} ...", flush=True)
        began, cpu = time.monotonic(), cpu_minutes()
        try:
            with PeakMemory() as peak:
                problem = execute(name, run, title, args.copies)
        except KeyboardInterrupt:
            print(f"\nStopped in {name}. What is done is kept; go on with: {again}")
            return 130
        if problem:
            print(f"{name}: {problem}")
            print("Executed copies lie in runs/latest/notebooks. What came before is kept. Mend the cause, then go on:")
            print(f"    {again}")
            break
        minutes = (time.monotonic() - began) / 60
        done[name] = {"minutes": minutes, "cpu_minutes": cpu_minutes() - cpu, "peak_memory_gib": peak.gib}
        save(run / "demo.json", state)
        print(
            f"    done in {minutes:.1f} min" + (f" (expected {expected[name]:.1f})" if name in expected else ""),
            flush=True,
        )

    rows = tally(run)
    for row in (r for r in rows if r["status"] in ("watch", "fail")):
        print(f"{row['status']:5} {row['name']}: {row['value']} against the band {row['band']}")
    counted = count(rows)
    passed, failed = counted["passed"], counted["failed"]
    state["finished"] = not problem
    if problem:
        failed += 1
    elif passed + failed == 0:
        print("No notebook recorded a check, so nothing is shown.")
        failed = 1
    elif counted["skipped"] and judged(json.loads((run / "run.json").read_text(encoding="utf-8"))):
        print("Checks were skipped although bands were made for these settings and cases: something that they judge is missing.")
        failed += counted["skipped"]
    save(run / "demo.json", state)
    file = run / "results.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for key in ("minutes", "cpu_minutes"):
        results[key] = round(sum(part[key] for part in done.values()), 2)
    results["peak_memory_gib"] = round(max((part["peak_memory_gib"] for part in done.values()), default=0.0), 2)
    if not problem:  # of a demo cut short they would be out of date as soon as it goes on
        results["checks"] = counted
    save(file, results)
    print(told({**counted, "failed": failed}))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

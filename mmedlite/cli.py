"""Commands: ``python -m mmedlite {doctor,plan,run,store,answers,seat,share,pool,bundle,verify}``. Heavy modules are imported by their users."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mmedlite import doctor
from mmedlite.profiles import ROOT, InputError, load_profile

WAIT_S = 30  # between two looks for room on the disk


def run(args: argparse.Namespace) -> int:
    """The pipeline without notebooks: triage, panels, attending, evaluation, bands; results in one run folder."""
    import torch

    from mmedlite import processes
    from mmedlite.checks import count, expect_all, tally, told
    from mmedlite.demo import PeakMemory, cpu_minutes
    from mmedlite.dry_run import DryRun, dry_run
    from mmedlite.pipeline import attending_step, evaluation_step, panel_step, triage_step
    from mmedlite.run import Run
    from mmedlite.verify import write_manifest

    start = time.time()
    if not torch.cuda.is_available():
        torch.set_num_threads(1)  # as in the demo: the same numbers on any number of cores
    folder = Path(args.out) if args.out else ROOT / "runs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{Path(args.profile).stem}"
    more = {"--profile": args.profile, "--cases": args.cases, "--seed": args.seed, "--out": folder}
    given = [word for name, value in more.items() if value is not None for word in (name, str(value))]
    words = "accelerate launch ... -m" if processes.several() else "python -m"
    again = f"{words} mmedlite run {shlex.join(given)}{' --replay' if args.replay else ''}"
    this = None
    try:
        if not processes.is_main():
            return processes.join_trainings()
        if args.dry_run:
            return dry_run(DryRun(folder, args.profile, args.cases))
        this = Run(folder, args.profile, args.cases, args.seed, args.replay)
        if this.profile.endpoint and not (args.replay or os.environ.get("OPENAI_API_KEY")):  # told before any training
            print("OPENAI_API_KEY is not set: the run will stop at the first opinion that is not stored.", file=sys.stderr)
        print(f"Run folder: {folder}. If it is stopped in any way, go on with: {again}", file=sys.stderr)
        with PeakMemory() as peak:
            triage_step(this)
            panel_step(this)
            attending_step(this)
            processes.dismiss()
            evaluation_step(this)
    except KeyboardInterrupt:
        print(f"Stopped. Go on with: {again}")
        return 130
    except InputError as error:
        while this and any(this.store.unsaved.values()):  # paid answers, for which the disk has no room
            print(f"error: {error}\nWaiting for room on the disk. Ctrl-C gives the answers in memory up.", file=sys.stderr)
            time.sleep(WAIT_S)
            with contextlib.suppress(InputError):
                this.store.add([])
        raise
    minutes = (time.time() - start) / 60
    this.update_results(minutes=round(minutes, 2), cpu_minutes=round(cpu_minutes(), 2), peak_memory_gib=round(peak.gib, 2))
    print(json.dumps(this.results(), indent=1))
    expect_all(this.results(), this.facts, folder)
    done = count(tally(folder))
    this.update_results(checks=done)
    write_manifest(folder, this.facts)
    print(told(done))
    return int(done["failed"] > 0)


def plan(args: argparse.Namespace) -> int:
    """Time some steps here: which profile fits the minutes and the memory at hand, and how long its training takes; 0 if one fits."""
    from mmedlite.plan import main as plan_main

    return plan_main(args.profile, args.minutes, args.memory)


def store(args: argparse.Namespace) -> int:
    """What a store of answers holds (stats), whether it is whole (audit); write it as Parquet with a data card, or take such a folder in."""
    from mmedlite.store_tools import main as store_main

    return store_main(args.action, args.folder, args.other)


def answers(args: argparse.Namespace) -> int:
    """Score the lenient answer parser on a file of cases; prints one JSON line."""
    from mmedlite.answers import score_cases

    print(json.dumps(score_cases(args.cases)))
    return 0


def seat(args: argparse.Namespace) -> int:
    """The world of a seat in a class, and how to run and share it."""
    from mmedlite.room import seat as told

    print(told(args.code, args.number))
    return 0


def share(args: argparse.Namespace) -> int:
    """Write what a finished run says in 2 KB, for a class to pool: numbers and hashes, no name, text or picture."""
    from mmedlite.room import share as written

    print(written(args.folder, args.out))
    return 0


def pool(args: argparse.Namespace) -> int:
    """Put the shares of a folder into one page, room.html: a dot a world, and what 1, 5 and 30 runs would have concluded."""
    from mmedlite.room import pool as pooled

    return pooled(args.folder, args.watch)


def bundle(args: argparse.Namespace) -> int:
    """Pack one tar for a room without network: the kit, its clinic, the wheels for this Python and system, and a hash of each file."""
    from mmedlite.bundle import bundle as packed

    print(packed(args.out))
    return 0


def verify(args: argparse.Namespace) -> int:
    """Check the hashes and re-score the stored rows of a run folder; prints every problem, 1 if there is one."""
    from mmedlite.cases import read_table
    from mmedlite.report import write_report
    from mmedlite.verify import broken_seal
    from mmedlite.verify import verify as check
    from mmedlite.verify_stamps import own_profile, read_object

    problems = check(args.folder, read_table(args.cases, check_images=False) if args.cases else None) + broken_seal(args.folder)
    print(*problems, f"{len(problems)} problems in {args.folder}", sep="\n")
    try:
        if file := write_report(Path(args.folder), problems):
            print(f"The report: {file}")
    except Exception as error:  # of a damaged run, whose problems are told above
        print(f"No report can be written: {error}")
    if not args.retrain:
        return int(bool(problems))
    made = next((f for f in (Path(args.folder) / "run.json", Path(args.folder) / "reference" / "run.json") if f.is_file()), None)
    facts = read_object(made) if made else {}
    if made and own_profile(facts) is None:
        raise InputError("this run's settings are none of the kit's profiles", str(made), "train it again with `run --profile FILE.toml`")
    again = {"profile": facts.get("profile", "tiny"), "cases": args.cases, "seed": facts.get("seed")}
    return max(int(bool(problems)), run(argparse.Namespace(**again, out=None, replay=False, dry_run=False)))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status, 1 for bad input (told in one message, without a traceback)."""
    parser = argparse.ArgumentParser(prog="python -m mmedlite", description="MMedLite: rebuild MMedAgent-RL and check its claims.")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("doctor", help="is this machine ready?")
    one.add_argument("--profile", default="tiny")
    one = commands.add_parser("plan", help=plan.__doc__)
    one.add_argument("--profile", help="a name in mmedlite/profiles, or a .toml file; all that are shipped by default")
    one.add_argument("--minutes", type=float, default=20.0, help="for the training (default 20)")
    one.add_argument("--memory", type=float, default=16.0, help="GiB, of the GPU where there is one (default 16)")
    one = commands.add_parser("run", help=run.__doc__)
    one.add_argument("--profile", default="tiny", help="a name in mmedlite/profiles, or a .toml file")
    one.add_argument("--cases", help="a case table (folder or Parquet file) instead of the profile's own")
    one.add_argument("--out", help="run folder; an unfinished one is taken up again")
    one.add_argument("--seed", type=int, help="training seed; the profile's by default")
    one.add_argument("--replay", action="store_true", help="fail on an opinion that is not stored instead of asking for it")
    one.add_argument("--dry-run", action="store_true", help="tell what would be asked of the specialists and what it would cost; ask nothing")
    one = commands.add_parser("store", help=store.__doc__)
    one.add_argument("action", choices=("stats", "audit", "export", "import"))
    one.add_argument("folder", type=Path, help="of the store, as runs/latest/opinions or artifacts/opinions")
    one.add_argument("other", type=Path, nargs="?", help="folder to export to, or to import from")
    one = commands.add_parser("answers", help=answers.__doc__)
    one.add_argument("--cases", required=True, help="JSON lines: response, options, expected")
    one = commands.add_parser("verify", help=verify.__doc__)
    one.add_argument("folder", nargs="?", default=str(ROOT / "runs" / "latest"), help="a run folder (the last demo's), or artifacts")
    one.add_argument("--cases", help="the case table of the run, where it is not the phantom clinic")
    one.add_argument("--retrain", action="store_true", help="then train again and compare with the bands (about ten minutes)")
    one = commands.add_parser("seat", help=seat.__doc__)
    one.add_argument("code", help="of the class, any words")
    one.add_argument("number", type=int, help="of the seat")
    one = commands.add_parser("share", help=share.__doc__)
    one.add_argument("folder", type=Path, help="a run folder that came to its end")
    one.add_argument("--out", type=Path, default=Path(), help="where the file is written (default: here)")
    one = commands.add_parser("pool", help=pool.__doc__)
    one.add_argument("folder", type=Path, help="of the files that `share` wrote")
    one.add_argument("--watch", action="store_true", help="go on as further files arrive, until Ctrl-C")
    one = commands.add_parser("bundle", help=bundle.__doc__)
    one.add_argument("out", type=Path, help="the tar to write, as workshop.tar")
    args = parser.parse_args(argv)
    try:
        if args.command == "doctor":
            load_profile(args.profile)
            return doctor.main(args.profile)
        known = {f.__name__: f for f in (plan, run, store, answers, seat, share, pool, bundle, verify)}
        return known[args.command](args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1

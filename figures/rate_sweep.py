"""Three learning rates on one panel: which one to train with, by validation accuracy after the same few updates.

``python -m figures.rate_sweep --profile gpu-3b --cases data/paper`` trains the last stage of the recipe that long at half, once and twice
the profile's rate, from the untrained policy each time, and prints validation accuracies. Test cases are not looked at.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from mmedlite.models import merged
from mmedlite.profiles import ROOT
from mmedlite.run import Run

FACTORS = (0.5, 1.0, 2.0)


def sweep(run: Run, panel: str, steps: int) -> dict[float, float]:
    """Validation accuracy of the policy trained so long at each rate; stored in ``rate_sweep.json`` of the run."""
    run.train_triage()  # or no case would be sent anywhere
    stage = replace(run.profile.attending.recipe[-1], steps=steps)
    found = {}
    for rate in (factor * run.profile.grpo.learning_rate for factor in FACTORS):
        model = run.train_attending(panel, [stage], f"{panel}_rate_{rate:g}", learning_rate=rate)
        found[rate] = float(run.answer(merged(model), f"rate {rate:g}", "validation", panel)["correct"].mean())
        print(f"learning rate {rate:g}: {found[rate]:.3f} of {len(run.cases('validation')):,} validation cases right", flush=True)
    run.save_json("rate_sweep.json", {**run.facts, "panel": panel, "steps": steps, "accuracy": {f"{r:g}": a for r, a in found.items()}})
    return found


def main() -> None:
    """Train, answer, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="gpu-3b")
    parser.add_argument("--cases", help="a case table instead of the profile's own")
    parser.add_argument("--steps", type=int, default=50, help="updates at each rate (default 50)")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "rates", help="the run's folder")
    args = parser.parse_args()
    run = Run(args.out, args.profile, args.cases)
    found = sweep(run, [*run.profile.panels][0], args.steps)
    print(f"best on validation cases: {max(found, key=lambda rate: found[rate]):g}")


if __name__ == "__main__":
    main()

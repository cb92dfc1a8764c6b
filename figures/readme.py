"""Fill the results block of README.md from the stored reference run, bands and timings; no number there is typed by hand."""

from __future__ import annotations

import json
import re
from typing import Any

from mmedlite.checks import BANDS
from mmedlite.profiles import ROOT, load_profile
from mmedlite.run_folder import RunFolder

START, END = "<!-- results: filled by `python -m figures.readme` -->\n", "<!-- /results -->"
NAMES = {
    "trained": "attending, recommended recipe", "untrained_panel": "attending, untrained, with panel", "no_panel": "untrained, no panel",
    "majority_vote": "majority vote", "best_single": "best single specialist", "rl_no_panel": "RL without panel, same budget",
    "sft": "SFT on the right option", "paper_schedule": "schedule as printed", "ideal_reader": "ideal reader (fitted; headroom)",
}  # fmt: skip


def _cell(numbers: dict[str, Any], name: str) -> str:
    if name not in numbers:
        return "not run"
    low, high = numbers[f"{name}_ci"]
    return f"{numbers[name]:.3f} [{low:.3f}, {high:.3f}]"


def _recipe() -> str:
    stages = load_profile("tiny").attending.recipe
    told = (f"stage '{s.name}', {s.steps} updates on {' and '.join(s.buckets) if len(s.buckets) < 3 else 'all'} cases" for s in stages)
    return ", then ".join(told)


def block() -> str:
    """The results as Markdown."""
    results = json.loads((RunFolder.reference / "results.json").read_text(encoding="utf-8"))
    triage, attending = results["triage"], results["attending"]
    panels = list(attending)
    n = attending[panels[0]]["n"]
    lines = [
        f"## What we saw (phantom clinic, simulated; test cases, greedy, n = {n:,}, training seed {results['seed']})\n",
        f"Triage: {_cell(triage, 'base')} before training, {_cell(triage, 'trained')} after; a colour histogram reaches "
        f"{_cell(triage, 'histogram')}, training on a coin for reward (decided by the text) {_cell(triage, 'random_reward')}.\n",
        f"The recommended recipe: {_recipe()}.\n",
        "| accuracy [95 % interval] | " + " | ".join(f"{p} panel" for p in panels) + " |",
        "|---|" + "---|" * len(panels),
    ]
    lines += [f"| {title} | " + " | ".join(_cell(attending[p], key) for p in panels) + " |" for key, title in NAMES.items()]
    sampled = ", ".join(f"{_cell(attending[p]['sampled'], 'trained')} ({p})" for p in panels)
    lines.append(f"\nThe recommended recipe at T = 1, one sample a case: {sampled}.\n")
    for panel in panels:
        gain, unanimous, trust = attending[panel]["gain"], attending[panel]["unanimous_gain"], results["trust"][panel]
        lines.append(
            f"- {panel}: trained minus {gain['over']} {gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}] (paired, by image); "
            f"on unanimous panels, trained minus vote {unanimous['mean']:+.3f} [{unanimous['low']:+.3f}, {unanimous['high']:+.3f}]; "
            f"height above the untrained bias curve {trust['above_curve']:+.3f} [{trust['low']:+.3f}, {trust['high']:+.3f}]."
        )
    moved = results["shifted"]
    low, high = moved["gain"]["low"], moved["gain"]["high"]
    lines.append(
        f"- shifted clinic ({panels[0]}, n = {moved['n']}): trained {_cell(moved, 'trained')}, best of vote and untrained "
        f"{_cell(moved, 'best_baseline')}, paired {moved['gain']['mean']:+.3f} [{low:+.3f}, {high:+.3f}]: "
        + ("a gain." if low > 0 else "a loss." if high < 0 else "no gain seen.")
    )
    bands = json.loads(BANDS.read_text(encoding="utf-8"))
    for name in [f"attending_{panel}_trained" for panel in panels if f"attending_{panel}_trained" in bands]:
        seeds = " ".join(f"{value:.3f}" for value in bands[name]["seeds"].values())
        lines.append(f"- {name}, five training seeds: {seeds}.")
    real = ROOT / "figures" / "data" / "real_triage.json"
    if real.exists():
        found = json.loads(real.read_text(encoding="utf-8"))
        lines.append(
            f"\nReal pictures, naming the modality ({len(found['pictures'])} modalities, {found['n']} pictures, {found['folds']} folds by "
            f"picture), macro recall: {found['base']:.3f} before training, {found['trained']:.3f} after "
            f"{found['warm_start']['steps']} supervised steps and {found['grpo']['steps']} of GRPO; colour histogram "
            f"{found['histogram']:.3f}; always the largest class {found['majority']:.3f} (its share is {found['majority_rate']:.3f})."
        )
    timings = ROOT / "artifacts" / "timings.json"
    if timings.exists():
        minutes = json.loads(timings.read_text(encoding="utf-8"))["tiny"]
        lines.append(f"\nThe seven notebooks took {sum(minutes.values()):.0f} minutes on two CPU cores.")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Rewrite the block in README.md."""
    file = ROOT / "README.md"
    text = file.read_text(encoding="utf-8")
    file.write_text(re.sub(re.escape(START) + ".*?" + re.escape(END), lambda _: START + block() + END, text, flags=re.S), encoding="utf-8")


if __name__ == "__main__":
    main()

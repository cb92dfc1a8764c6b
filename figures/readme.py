"""Write ``docs/measured.md``, and fill README's block, from the stored runs, bands and timings; no number there is typed by hand."""

from __future__ import annotations

import json
import re
from typing import Any

import nbformat

from figures import _evidence_page, _real, _speed
from figures.cards import MARKER, flip_text, gain_text
from mmedlite.checks import BANDS
from mmedlite.claims import PARTS, of_worlds
from mmedlite.copies import exercise_of
from mmedlite.demo import NOTEBOOKS
from mmedlite.evaluation import signed, with_interval
from mmedlite.evidence import DATA, count
from mmedlite.exercises import EXERCISES
from mmedlite.exercises.exercise import Exercise
from mmedlite.profiles import ROOT, load_profile
from mmedlite.run_folder import RunFolder
from mmedlite.summary import difference

START, END = "<!-- results: filled by `python -m figures.readme` -->\n", "<!-- /results -->"
MEASURED = ROOT / "docs" / "measured.md"
ASKED = (  # the question of each notebook
    "Can *you* beat the vote?",
    "How many doctors are three answers worth?",
    "What is a right referral worth?",
    'Is "hard" the case, the luck or the label?',
    "What does each stage teach?",
    "Better than what, and because of what?",
    "What may we now say, and about what?",
)
QUESTIONS = dict(zip(NOTEBOOKS, ASKED, strict=True))
NAMES = {
    "trained": "attending, recommended recipe", "untrained_panel": "attending, untrained, with panel", "no_panel": "untrained, no panel",
    "majority_vote": "majority vote", "best_single": "best single specialist", "rl_no_panel": "RL without panel, same budget",
    "sft": "SFT on the right option", "paper_schedule": "schedule as printed", "ideal_reader": "ideal reader (fitted; headroom)",
}  # fmt: skip

OVER_WORLDS = {
    "recommended_as_is": "recommended recipe", "untrained_panel": "untrained", "majority_vote": "vote", "printed_as_is": "schedule as printed",
}  # fmt: skip


def _cell(numbers: dict[str, Any], name: str) -> str:
    if name not in numbers:
        return "not run"
    return with_interval(numbers[name], numbers[f"{name}_ci"])


def _recipe() -> str:
    """What the recommended recipe visits, from the profile."""
    stages = load_profile("tiny").attending.recipe
    visits = "; ".join(f"`{s.name}` {s.steps} steps on {' + '.join(s.buckets)}" for s in stages)
    last = stages[-1]
    whole = f" The last stage, named `{last.name}` in the files, visits all buckets." if len(last.buckets) == 3 else ""
    return f"The recommended recipe, stage by stage: {visits}.{whole}"


def _printed(folder: RunFolder, panel: str) -> str:
    """The schedule as printed against the untrained policy and the vote, paired."""
    rows = {s: folder.rows(f"{panel}/test/{s}") for s in ("paper_schedule", "untrained_panel", "majority_vote")}
    minus = {s: signed(difference(rows["paper_schedule"], rows[s])) for s in ("untrained_panel", "majority_vote")}
    return f"{panel} {minus['untrained_panel']} against the untrained policy, {minus['majority_vote']} against the vote"


def measured() -> str:
    """Everything that was measured, as Markdown."""
    results = json.loads((RunFolder.reference / "results.json").read_text(encoding="utf-8"))
    triage, attending = results["triage"], results["attending"]
    panels = list(attending)
    n = attending[panels[0]]["n"]
    lines = [
        f"## What we saw (phantom clinic, simulated; test cases, greedy, n = {n:,}, training seed {results['seed']})\n",
        f"Triage: {_cell(triage, 'base')} before training, {_cell(triage, 'trained')} after; a colour histogram reaches "
        f"{_cell(triage, 'histogram')}. A coin for a reward leaves {_cell(triage, 'random_reward')}: on average it pulls nowhere, but a "
        "finite run drifts.\n",
        "| accuracy [95 % interval] | " + " | ".join(f"{p} panel" for p in panels) + " |",
        "|---|" + "---|" * len(panels),
    ]
    lines += [f"| {title} | " + " | ".join(_cell(attending[p], key) for p in panels) + " |" for key, title in NAMES.items()]
    sampled = ", ".join(f"{_cell(attending[p]['sampled'], 'trained')} ({p})" for p in panels)
    lines.append(f"\nThe recommended recipe at T = 1, one sample a case: {sampled}.\n")
    folder = RunFolder(RunFolder.reference, {"cases_sha256": results["cases_sha256"]})
    printed = "; ".join(_printed(folder, p) for p in panels if folder.has_rows(f"{p}/test/paper_schedule"))
    lines.append(f"{_recipe()} The schedule as printed, strictly easy, then medium, then hard, one epoch each: {printed} (paired, by image).\n")
    for panel in panels:
        gain, unanimous, trust = attending[panel]["gain"], attending[panel]["unanimous_gain"], results["trust"][panel]
        lines.append(
            f"- {panel}: trained minus {gain['over']} {gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}] (paired, by image); "
            f"on unanimous panels, trained minus vote {unanimous['mean']:+.3f} [{unanimous['low']:+.3f}, {unanimous['high']:+.3f}]; "
            f"height above the untrained bias curve {trust['above_curve']:+.3f} [{trust['low']:+.3f}, {trust['high']:+.3f}]."
        )
    shifted = results.get("shifted", {})
    for panel, found in ((p, shifted if p == panels[0] else shifted.get(p)) for p in panels):  # the first panel's bear no name
        if found:
            gain = found["gain"]
            rival = f"the better of vote and untrained policy {_cell(found, 'best_baseline')}"
            lines.append(f"- {panel}, shifted clinic (n = {found['n']:,}): {_cell(found, 'trained')}, {rival}, difference {signed(gain)}.")
    bands = json.loads(BANDS.read_text(encoding="utf-8"))
    for name in [f"attending_{panel}_trained" for panel in panels if f"attending_{panel}_trained" in bands]:
        seeds = " ".join(f"{value:.3f}" for value in bands[name]["seeds"].values())
        lines.append(f"- {name}, five training seeds: {seeds}.")
    marker = json.loads(MARKER.read_text(encoding="utf-8"))
    lines.append(f"\n{gain_text(marker['gain'])} {flip_text(marker['flips']).strip()}")
    data = ROOT / "figures" / "data"
    lines += _real.triage(data)
    lines += ["\n## Better than what, and because of what\n", *_evidence_page.main()]
    lines.append("\nAll numbers: `figures/evidence.md`; the paper's tables beside the same comparisons here: `figures/mirrored_tables.md`.")
    lines += _speed.engine(data) + _speed.stages(data) + _speed.store(data) + _real.sizes(data) + _real.small(data)
    return "\n".join(lines) + "\n"


def _took() -> dict[str, dict[str, float]]:
    """Minutes and GiB of each notebook, as ``figures.artifacts`` measured them."""
    found: dict[str, dict[str, float]] = json.loads((ROOT / "artifacts" / "timings.json").read_text(encoding="utf-8"))["tiny"]
    return found


def _read(name: str) -> tuple[nbformat.NotebookNode, list[Exercise]]:
    """A notebook and its exercises."""
    book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    return book, [EXERCISES[task] for cell in book.cells if (task := exercise_of(cell))]


def timed(name: str) -> str:
    """The text of a notebook's first cell, its line on time and memory filled."""
    (book, tasks), took = _read(name), _took()[name]
    line = (
        f"Time: {took['minutes']:.1f} minutes on two CPU cores, at most {took['peak_memory_gib']:.1f} GiB; the exercises about "
        f"{sum(task.minutes for task in tasks)} minutes more. No network, no GPU."
    )
    return re.sub(r"^Time: .*$", line, book.cells[0].source, flags=re.M)


def notebooks() -> list[str]:
    """The seven notebooks with their questions, minutes and memory, and the minutes of their exercises."""
    took = _took()
    lines = ["## The seven notebooks\n", "| notebook | question | minutes, GiB on two CPU cores | exercises, minutes |", "|---|---|---|---|"]
    for name, question in QUESTIONS.items():
        told = ", ".join(f"{task.level} {task.minutes}" for task in _read(name)[1])
        lines.append(
            f"| [`{name}`](notebooks/{name}.ipynb) | {question} | {took[name]['minutes']:.1f}, {took[name]['peak_memory_gib']:.1f} | {told} |"
        )
    whole, peak = sum(part["minutes"] for part in took.values()), max(part["peak_memory_gib"] for part in took.values())
    core = [task.minutes for task in EXERCISES.values() if task.level == "core"]
    lines.append(
        f"\nTogether {whole:.0f} minutes, at most {peak:.1f} GiB. The {len(core)} core exercises take about {sum(core)} minutes. Each notebook "
        "runs alone: what an earlier one has not made yet is read from the stored reference run.\n"
    )
    return lines


def claims_over_worlds() -> list[str]:
    """The primary contrasts of the analysis plan, a row a claim."""
    if not (found := count()):
        return []
    panels = [name.removeprefix("all, ") for name in found["accuracy"] if name.startswith("all, ")]
    means = {title: " / ".join(f"{found['accuracy'][f'all, {p}'][arm]:.3f}" for p in panels) for arm, title in OVER_WORLDS.items()}
    lines = [
        f"\nMean accuracy over {len(found['worlds'])} of {found['planned']} unseen worlds (simulated; other cases, opinions and trainings "
        f"each), {' / '.join(panels)}: {'; '.join(f'{title} {told}' for title, told in means.items())}.",
        "\nThe printed recipe with one thing changed, in those worlds, by a [plan](figures/analysis_plan.md) written before the first run "
        "(exact test, Holm over all rows and panels):\n",
        f"| claim | seen? | {' | '.join(f'difference, {p}' for p in panels)} |", "|---|---|" + "---|" * len(panels),
    ]  # fmt: skip
    rows = {contrast: [signed(found["primary"][f"{contrast}, {p}"]) for p in panels] for contrast in PARTS}
    told = zip(of_worlds(found), rows.values(), strict=True)
    return lines + [f"| {claim.claim} | {claim.verdict} | {' | '.join(cells)} |" for claim, cells in told]


def block() -> str:
    """README's block: the notebooks, and the main numbers with their bands."""
    results, bands = (json.loads(file.read_text(encoding="utf-8")) for file in (RunFolder.reference / "results.json", BANDS))
    panels, shown = list(results["attending"]), ("trained", "untrained_panel", "majority_vote", "paper_schedule", "ideal_reader")
    n = results["attending"][panels[0]]["n"]
    lines = [*notebooks(), f"## What to expect (phantom clinic, simulated; n = {n:,} test cases, greedy, training seed {results['seed']})\n",
             "| accuracy [95 % interval] | " + " | ".join(f"{p} panel" for p in panels) + " |", "|---|" + "---|" * len(panels)]  # fmt: skip
    lines += [f"| {NAMES[key]} | " + " | ".join(_cell(results["attending"][p], key) for p in panels) + " |" for key in shown]
    held = [f"[{bands[name]['low']:.2f}, {bands[name]['high']:.2f}]" for name in (f"attending_{p}_trained" for p in panels)]
    lines.append(
        f"| band of the first row, from {len(bands[f'attending_{panels[0]}_trained']['seeds'])} training seeds | " + " | ".join(held) + " |\n"
    )
    gain = json.loads(MARKER.read_text(encoding="utf-8"))["gain"]
    last = "\nEverything else, with its limits: [`docs/measured.md`](docs/measured.md)."
    lines += [gain_text(gain), _evidence_page.in_short(DATA), *claims_over_worlds(), last]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write both, and each notebook's line on time."""
    for name in QUESTIONS:
        book, _ = _read(name)
        book.cells[0].source = timed(name)
        nbformat.write(book, ROOT / "notebooks" / f"{name}.ipynb")
    head = "# What was measured\n\nWritten by `make figures`; no number here is typed by hand.\n\n"
    MEASURED.write_text(head + measured(), encoding="utf-8")
    file = ROOT / "README.md"
    text = file.read_text(encoding="utf-8")
    file.write_text(re.sub(re.escape(START) + ".*?" + re.escape(END), lambda _: START + block() + END, text, flags=re.S), encoding="utf-8")


if __name__ == "__main__":
    main()

"""What README says of real pictures, from ``real_triage.json`` and ``real_small.json``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmedlite.evaluation import signed, with_interval

READERS = {
    "majority_answer": "the commonest training answer among the options", "text_only": "the question's words alone (linear)",
    "linear_probe": "these and the frozen tower's features (linear probe)", "no_panel": "policy before GRPO, without the panel",
    "majority_vote": "vote of the panel", "untrained_panel": "policy before GRPO, with the panel", "trained": "**trained, with the panel**",
    "ideal_reader": "ideal reader (fitted; headroom)", "swapped": "trained, another picture of the modality",
    "shuffled": "trained, pixels shuffled", "blank": "trained, its picture blank",
}  # fmt: skip
RIVALS = {"text_only": "the words alone", "majority_vote": "the vote", "no_panel": "the policy before GRPO, without the panel",
          "swapped": "itself with another picture of the modality"}  # fmt: skip
WAYS = {"majority": "always the commonest", "histogram": "colour histogram", "linear_probe": "linear probe", "base": "before GRPO",
        "trained": "trained"}  # fmt: skip


def triage(data: Path) -> list[str]:
    """The sentence on naming the modality of real pictures."""
    found = json.loads((data / "real_triage.json").read_text(encoding="utf-8"))
    return [
        f"\nReal pictures, naming the modality ({len(found['pictures'])} modalities, {found['n']} pictures, {found['folds']} folds by "
        f"picture), macro recall: {found['base']:.3f} before training, {with_interval(found['trained'], found['trained_ci'])} after "
        f"{found['warm_start']['steps']} supervised steps and {found['grpo']['steps']} of GRPO; colour histogram "
        f"{found['histogram']:.3f}; always the largest class {found['majority']:.3f} (its share is {found['majority_rate']:.3f})."
    ]


def sizes(data: Path) -> list[str]:
    """The paper's sizes of its sets, and what each rule that was tried gives."""
    lines = ["\n## The sizes of the paper's sets\n", "Questions by rule, counted in the files; bold: the paper's number.\n",
             "| set | split | the paper | here, by rule |", "|---|---|---|---|"]  # fmt: skip
    for title, found in json.loads((data / "set_sizes.json").read_text(encoding="utf-8")).items():
        for split, n in found["paper"].items():
            counts = {rule: by_split.get(split, 0) for rule, by_split in (found["rules"] or {}).items()}
            told = "; ".join(f"{rule} **{count:,}**" if count == n else f"{rule} {count:,}" for rule, count in counts.items())
            missing = f"not counted, no copy at hand: `python -m data_prep {found['source']}`"
            lines.append(f"| {title} | {split} | {n:,} | {told or missing} |")
    return lines


def small(data: Path) -> list[str]:
    """The pipeline on real pictures with small models: a table by set, and in words where it gains and where it does not."""
    if not (file := data / "real_small.json").exists():
        return []
    found = json.loads(file.read_text(encoding="utf-8"))
    sets, routes, cases, alike = found["by_set"], found["triage"], found["cases"], found["look_alikes"]
    parts = sets.values()
    lines = [
        "\n## The whole pipeline on real pictures, small\n",
        f"Profile `real-small`: {found['pictures']:,} pictures of VQA-RAD, SLAKE, OmniMedVQA and label sets, split by picture; "
        f"{cases['school']} cases taught to the models, {cases['train']} for GRPO, {cases['test']} for test; {found['panel']} panel, training "
        f"seed {found['seed']}; {found['minutes']:.0f} minutes from the raw files to this table on two CPU cores. The models have 1.2 M "
        "parameters and towers trained on phantoms alone: this shows what the pipeline makes of real data, not what a large policy can do.\n",
        _row("accuracy, greedy", [f"{name} (n {part['n']})" for name, part in sets.items()]),
        "|---|" + "---|" * len(sets),
        _row("chance", [f"{part['chance']:.3f}" for part in parts]),
    ]
    lines += [_row(title, [f"{part['accuracy'][key]:.3f}" for part in parts]) for key, title in READERS.items()]
    silent = {"trained": "trained", "blank": "its picture blank"}
    lines += [_row(f"no option named, {title}", [f"{part['no_answer'][key]:.3f}" for part in parts]) for key, title in silent.items()]
    lines += [_row(f"trained minus {title}", [signed(part["trained_minus"][key]) for part in parts]) for key, title in RIVALS.items()]
    recall = ", ".join(f"{title} {routes['accuracy'][key]:.3f} ({routes['macro_recall'][key]:.3f})" for key, title in WAYS.items())
    moved = routes["macro_recall"]["trained"] - routes["macro_recall"]["base"]
    return [
        *lines, "\nThe trained policy against\n",
        *(f"- {title}: {_by_sign({n: p['trained_minus'][key] for n, p in sets.items()})}." for key, title in RIVALS.items()),
        f"\nOf {alike['images']} test pictures {alike['images_shared']} are in training too and {alike['images_alike']} more look like a "
        "training picture (perceptual hash). OmniMedVQA's blood cells are turned copies of fewer smears, which no hash knows: numbers of its "
        "rows are too good for new patients.",
        f"\nTriage by modality, accuracy (macro recall over {len(routes['departments'])} departments), n = {routes['n']}: {recall}. GRPO "
        f"changed the macro recall of the warm start by {moved:+.3f}.",
    ]  # fmt: skip


def _row(title: str, cells: Iterable[str]) -> str:
    return f"| {title} | " + " | ".join(cells) + " |"


def _by_sign(gains: Mapping[str, Mapping[str, Any]]) -> str:
    """Sets by the sign of a difference's interval."""
    sign = {name: (gain["low"] > 0) - (gain["high"] < 0) for name, gain in gains.items()}
    words = {"better": 1, "worse": -1, "not told apart": 0}
    told = {word: ", ".join(name for name, s in sign.items() if s == kind) for word, kind in words.items()}
    return "; ".join(f"{word} on {names}" for word, names in told.items() if names)

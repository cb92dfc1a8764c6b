"""Model cards of the tiny models, filled from the recipe's settings and the stored accuracies; what the marker explains, for README."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from data_prep.tiny_base import BASE_SEED, POLICY, SPECIALIST
from data_prep.tiny_examples import OWN_READING, OWN_READING_CLOSING
from mmedlite import attending
from mmedlite.answers import parse_strict
from mmedlite.cases import Case
from mmedlite.evaluation import share_right, shares, signed, with_interval
from mmedlite.models import generate
from mmedlite.profiles import DEPARTMENTS, ROOT
from mmedlite.prompts import ALONE_ROLE, PANEL_ROLE
from mmedlite.run import Run
from mmedlite.summary import gain_by_marker

MARKER = ROOT / "figures" / "data" / "by_marker.json"
LIMITS = (
    "Trained on phantoms that the kit draws itself. Simulated, for teaching; not for clinical use. Licence: MIT.\n"
    "Rebuild: `python -m data_prep tiny_base`.\n"
)


def _sha256(path: str) -> str:
    return hashlib.sha256((ROOT / "artifacts" / path).read_bytes()).hexdigest()


def role_line_flips(run: Run) -> dict[str, Any]:
    """How often the untrained policy (greedy) contradicts a unanimous panel, under the attending's role line and under the line that
    the warm start taught overruling with; test cases of the first panel, by the marker.

    {"marked" or "clear": {"panel" or "alone": share, "..._ci": interval, "n": cases}}.
    """
    panel = [*run.profile.panels][0]
    rows = run.rows(f"{panel}/test/untrained_panel")
    keep = np.flatnonzero(rows["unanimous"])
    cases, options = [run.cases("test")[i] for i in keep], run.panel("test", panel)[keep]
    votes, marked = rows["panel_vote"].to_numpy()[keep], np.array([c.meta["marked"] for c in cases])
    prompts = [attending.prompt_of(c, d, o) for c, d, o in zip(cases, rows["department"].iloc[keep], options, strict=True)]
    flipped = {"panel": rows["option"].to_numpy()[keep], "alone": _answers(run, cases, [p.replace(PANEL_ROLE, ALONE_ROLE) for p in prompts])}
    found: dict[str, Any] = {}
    for kind, here in (("marked", marked), ("clear", ~marked)):
        parts = {role: pd.DataFrame({"correct": ((said >= 0) & (said != votes))[here]}) for role, said in flipped.items()}
        found[kind] = {**shares(parts), "n": int(here.sum())}
    return found


def _answers(run: Run, cases: Sequence[Case], prompts: Sequence[str]) -> np.ndarray:
    """The untrained policy's greedy options to prompts of any kind: (n,) int, -1 for none."""
    policy, size, answers = run.policy(), run.profile.eval_batch, []
    for start in range(0, len(cases), size):
        pictures = [run.table.open_image(c) for c in cases[start : start + size]]
        answers += generate(policy, run.processor, pictures, prompts[start : start + size], run.profile.grpo.max_new_tokens)
    read = [parse_strict(a.text, c.options).option for a, c in zip(answers, cases, strict=True)]
    return np.array([-1 if option is None else option for option in read])


def gain_text(gain: dict[str, Any]) -> str:
    """Where the gain lies, as sentences of README."""
    told = "; ".join(f"{panel} {signed(g['marked'])} on marked pictures, {signed(g['clear'])} on clear ones" for panel, g in gain.items())
    return f"Where the gain over the untrained policy lies (the simulated marker; test cases, paired by image): {told}."


def flip_text(flips: dict[str, Any]) -> str:
    """The measured flips as sentences of card and README."""
    said = [
        f"{kind} pictures (n = {f['n']:,}): {with_interval(f['panel'], f['panel_ci'])} under the panel's role line, "
        f"{with_interval(f['alone'], f['alone_ci'])} under the other" for kind, f in ((k, flips[k]) for k in ("marked", "clear"))
    ]  # fmt: skip
    return (
        "How often the untrained policy (test cases, greedy) answers something else than a unanimous panel: " + "; ".join(said) + ". "
        "So a part of what reinforcement learning brings out was put there by the warm start: it strengthens the habit rather than finds "
        "it.\n\n"
    )


def policy_card(run: Run, flips: dict[str, Any]) -> str:
    """Card of the policy: data, steps, seed, hash, accuracy by task on the test split (greedy)."""
    results = run.reference_results()
    rows = run.rows(f"{[*run.profile.panels][0]}/test/no_panel")
    kinds = [run.table.by_id(c).meta["kind"] for c in rows["case_id"]]
    lines = [f"| answers '{k}' alone | {share_right(part)} | {len(part):,} |" for k, part in rows.groupby(kinds)]
    four, triage = rows[rows["n_options"] == 4], results["triage"]
    return (
        "# MMedLite tiny policy\n\n"
        f"A Qwen2.5-VL (`Qwen2_5_VLForConditionalGeneration`) of about 1.2 M parameters. Vision tower: {POLICY['tower_steps']} steps "
        f"with classification heads on {POLICY['cases']:,} phantoms; language model: {POLICY['language_steps']} steps of warm start. "
        f"With a panel the warm start tosses a coin between its own reading ({OWN_READING}, at last {OWN_READING_CLOSING}) and a member of "
        "the panel: a simulated habit. In the last round a third of the panel prompts bore the role line of the attending alone; under it "
        "the warm start taught the policy to overrule the panel on marked pictures and to follow it on the others (simulated as well). "
        f"Seed {POLICY['seed']}; phantom seeds from {BASE_SEED:,}.\n\n"
        f"sha256 of `model.safetensors`: `{_sha256('policy/model.safetensors')}`\n\n"
        "| task (test split, greedy, before any reinforcement learning) | accuracy [95 % interval] | n |\n|---|---|---|\n"
        f"| triage | {with_interval(triage['base'], triage['base_ci'])} | {triage['n']:,} |\n" + "\n".join(lines) + "\n"
        f"| four options, alone | {share_right(four)} | {len(four):,} |\n\n" + flip_text(flips) + LIMITS
    )


def specialists_card(run: Run) -> str:
    """Card of the specialists: steps, seed, and each department's accuracy at home and elsewhere (stored opinions, T = 1)."""
    right: dict[tuple[str, bool], list[bool]] = {}
    for opinion in run.store.values():
        case = run.table.by_id(opinion["case_id"])
        key = opinion["department"], opinion["department"] == case.specialty
        right.setdefault(key, []).append(opinion["option"] == case.answer)

    def share(department: str, home: bool) -> str:
        found = right.get((department, home), [])
        return f"{share_right(pd.DataFrame({'correct': found}))}, n {len(found):,}" if found else "not stored"

    lines = [f"| {d} | {share(d, True)} | {share(d, False)} |" for d in DEPARTMENTS]
    return (
        "# MMedLite tiny specialists\n\n"
        f"One base with a vision tower of its own ({SPECIALIST['tower_steps']} + {SPECIALIST['read_steps']} + {SPECIALIST['guess_steps']} "
        f"steps, seed {SPECIALIST['seed']}) and three LoRA adapters a department (rank {SPECIALIST['r']}, {SPECIALIST['adapter_steps']} "
        "steps each). Their own views of a case and their blind spots (the department's marker is taken for a finding) are simulated.\n\n"
        f"sha256 of the base: `{_sha256('specialists/base/model.safetensors')}`\n\n"
        "| department | accuracy at home [95 % interval over answers] | elsewhere |\n|---|---|---|\n" + "\n".join(lines) + "\n\n" + LIMITS
    )


def main() -> None:
    """Write both cards from the stored reference run and opinions, and flips and gains by the marker, which README reads."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder)
    flips = role_line_flips(run)
    found = {"flips": flips, "gain": gain_by_marker(run, run.table, list(run.profile.panels)), **run.facts}
    MARKER.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (ROOT / "artifacts" / "policy" / "README.md").write_text(policy_card(run, flips), encoding="utf-8")
    (ROOT / "artifacts" / "specialists" / "README.md").write_text(specialists_card(run), encoding="utf-8")


if __name__ == "__main__":
    main()

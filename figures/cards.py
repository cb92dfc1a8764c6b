"""Model cards of the tiny models, filled from the recipe's settings and the stored accuracies."""

from __future__ import annotations

import hashlib
import tempfile

from data_prep.tiny_base import BASE_SEED, POLICY, SPECIALIST
from data_prep.tiny_examples import OWN_READING, OWN_READING_CLOSING
from mmedlite.profiles import DEPARTMENTS, ROOT
from mmedlite.run import Run

LIMITS = (
    "Trained on phantoms that the kit draws itself. Simulated, for teaching; not for clinical use. Licence: MIT.\n"
    "Rebuild: `python -m data_prep tiny_base`.\n"
)


def _sha256(path: str) -> str:
    return hashlib.sha256((ROOT / "artifacts" / path).read_bytes()).hexdigest()


def policy_card(run: Run) -> str:
    """Card of the policy: data, steps, seed, hash, accuracy by task on the test split (greedy)."""
    results = run.reference_results()
    rows = run.rows(f"{run.profile.panels[0]}/test/no_panel")
    kinds = [run.table.by_id(c).meta["kind"] for c in rows["case_id"]]
    lines = [f"| answers '{k}' alone | {part['correct'].mean():.3f} | {len(part)} |" for k, part in rows.groupby(kinds)]
    four = rows[rows["n_options"] == 4]["correct"]
    return (
        "# MMedLite tiny policy\n\n"
        f"A Qwen2.5-VL (`Qwen2_5_VLForConditionalGeneration`) of about 1.2 M parameters. Vision tower: {POLICY['tower_steps']} steps "
        f"with classification heads on {POLICY['cases']:,} phantoms; language model: {POLICY['language_steps']} steps of warm start. "
        f"With a panel the warm start tosses a coin between its own reading ({OWN_READING}, at last {OWN_READING_CLOSING}) and a member of "
        "the panel: a simulated habit. Under another role line it is also shown how to overrule the panel on marked pictures; the role line "
        "does not keep the two apart, so that it does so now and then under the attending's own prompt too. "
        f"Seed {POLICY['seed']}; phantom seeds from {BASE_SEED:,}.\n\n"
        f"sha256 of `model.safetensors`: `{_sha256('policy/model.safetensors')}`\n\n"
        "| task (test split, greedy, before any reinforcement learning) | accuracy | n |\n|---|---|---|\n"
        f"| triage | {results['triage']['base']:.3f} | {results['triage']['n']} |\n" + "\n".join(lines) + "\n"
        f"| four options, alone | {four.mean():.3f} | {len(four)} |\n\n" + LIMITS
    )


def specialists_card(run: Run) -> str:
    """Card of the specialists: steps, seed, and each department's accuracy at home and elsewhere (stored opinions, T = 1)."""
    right: dict[tuple[str, bool], list[bool]] = {}
    for opinion in run.store.rows.values():
        case = run.table.by_id(opinion["case_id"])
        key = opinion["department"], opinion["department"] == case.specialty
        right.setdefault(key, []).append(opinion["option"] == case.answer)

    def share(department: str, home: bool) -> str:
        found = right.get((department, home), [])
        return f"{sum(found) / len(found):.3f} (n {len(found):,})" if found else "not stored"

    lines = [f"| {d} | {share(d, True)} | {share(d, False)} |" for d in DEPARTMENTS]
    return (
        "# MMedLite tiny specialists\n\n"
        f"One base with a vision tower of its own ({SPECIALIST['tower_steps']} + {SPECIALIST['read_steps']} + {SPECIALIST['guess_steps']} "
        f"steps, seed {SPECIALIST['seed']}) and three LoRA adapters a department (rank {SPECIALIST['r']}, {SPECIALIST['adapter_steps']} "
        "steps each). Their own views of a case and their blind spots (the department's marker is taken for a finding) are simulated.\n\n"
        f"sha256 of the base: `{_sha256('specialists/base/model.safetensors')}`\n\n"
        "| department | accuracy at home | elsewhere |\n|---|---|---|\n" + "\n".join(lines) + "\n\n" + LIMITS
    )


def main() -> None:
    """Write both cards from the stored reference run and opinions."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder)
    (ROOT / "artifacts" / "policy" / "README.md").write_text(policy_card(run), encoding="utf-8")
    (ROOT / "artifacts" / "specialists" / "README.md").write_text(specialists_card(run), encoding="utf-8")


if __name__ == "__main__":
    main()

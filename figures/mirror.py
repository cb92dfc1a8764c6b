"""The paper's tables beside the same comparison in the clinic: ``figures/mirrored_tables.md``, filled from stored numbers."""

from __future__ import annotations

import json
from typing import Any

from mmedlite.curriculum import BUCKETS
from mmedlite.evaluation import with_interval
from mmedlite.evidence import DATA
from mmedlite.paper_audit import load_tables
from mmedlite.profiles import ROOT, load_profile
from mmedlite.run_folder import RunFolder

OUT = ROOT / "figures" / "mirrored_tables.md"
INTRO = """# The paper's tables, mirrored

Left the paper's numbers, right the same comparison in the phantom clinic. **They measure different worlds**: real images, Qwen2.5-VL-7B and
hosted specialists there, drawn images, a model of about a million parameters and simulated specialists here. Only what moves what may
be compared, never the size. Clinic 0, test cases, greedy but for votes of samples, one training seed, Wilson 95 % intervals. Filled by
`make figures`.

*Schedule as printed* is the paper's: one epoch each of easy, medium and hard cases. *Recommended recipe* is the kit's own: {mixed} of its
{steps} updates visit all buckets. What was run with the recommended recipe alone says so.

Under each table stand the paper's rows without a counterpart: other models, other makes of panels, parts that were not trained one by one
(+ Easy and + Medium of Table 2 are stages here too, but are not tested one by one; every panel is a routed one). MedAgents, MDAgents,
AFlow and debate need models that converse. Tables without a mirror: 8 and 15 (single-model scaling, a second backbone) have not been run;
16 to 18 are about models and sets that the clinic has no counterpart of.
"""
# Paper table: title, rows of (paper's row or None, what was run here, system, kind of case)
MIRROR: dict[str, tuple[str, list[tuple[str | None, str, str, str]]]] = {
    "1": ("Main results and test-time scaling", [
        ("MMedAgent-RL-7B", "schedule as printed", "paper_schedule", "all"), (None, "recommended recipe", "trained", "all"),
        ("MMedAgent-RL-7B + majority vote", "recommended recipe, vote of five samples", "scaled", "all"),
        ("Qwen2.5-VL-7B", "untrained policy, no panel", "no_panel", "all"), (None, "majority vote of the panel", "majority_vote", "all"),
        (None, "one specialist", "specialist_1", "all"), (None, "three-weight reader", "three_weights", "all"),
    ]),
    "2": ("Ablation", [
        ("full", "schedule as printed", "paper_schedule", "all"), (None, "recommended recipe", "trained", "all"),
        ("w/o Triage", "recommended recipe, untrained triage", "route_zero_shot", "all"),
        ("w/o Specialists", "GRPO without the panel", "rl_no_panel", "all"), ("w/o C-MARL", "untrained attending", "untrained_panel", "all"),
        ("+ Hard", "schedule as printed, as in the row 'full'", "paper_schedule", "all"),
        (None, "GRPO on easy cases alone", "easy_alone", "all"), (None, "GRPO on medium cases alone", "medium_alone", "all"),
        (None, "GRPO on hard cases alone", "hard_alone", "all"),
        (None, "plain GRPO: one stage, one KL weight, no entropy term", "plain_grpo", "all"),
    ]),
    "5": ("SFT", [
        ("GPT-4o -> Qwen2.5-VL-7B", "untrained attending", "untrained_panel", "all"),
        ("GPT-4o -> Qwen2.5-VL-7B, SFT w/o reasoning", "SFT, answer only", "sft", "all"),
        ("GPT-4o -> Qwen2.5-VL-7B, SFT w/ reasoning", "SFT, true reading written out (privileged)", "sft_reasoning", "all"),
        (None, "rejection-sampling fine-tuning", "rejection", "all"),
    ]),
    "6": ("Panels of other make; recommended recipe, trained on the column's panel", [
        ("3 x OpenAI-o3", "three answers, its own panel", "trained", "all"), ("1 x GPT-4o", "one answer", "answers_1", "all"),
        ("1 x Qwen2.5-VL-7B + 1 x GPT-4o", "two answers", "answers_2", "all"), (None, "no answer", "alone", "all"),
        (None, "dial-a-panel: three strong (.90)", "dial_strong", "all"), (None, "three medium (.72)", "dial_medium", "all"),
        (None, "three weak (.55)", "dial_weak", "all"),
        ("2 x OpenAI-o3 + 1 x Qwen2.5-VL-7B", "two strong, one weak", "dial_strong+strong+weak", "all"),
        (None, "one strong, two weak", "dial_strong+weak+weak", "all"),
    ]),
    "9": ("Cases that every specialist gets wrong", [
        ("base, w/o experts", "untrained, no panel", "no_panel", "hard"),
        ("base, with experts", "untrained, with panel", "untrained_panel", "hard"),
        ("SFT", "SFT, answer only", "sft", "hard"), ("MMedAgent-RL", "schedule as printed", "paper_schedule", "hard"),
        (None, "recommended recipe", "trained", "hard"),
    ]),
    "10": ("Routing; attending trained by the recommended recipe", [
        ("trained triage", "trained triage", "trained", "all"), ("zero-shot triage", "untrained triage", "route_zero_shot", "all"),
        ("random triage", "random departments", "route_random", "all"),
        ("w/o triage, Qwen2.5-VL-7B", "untrained policy, no panel", "no_panel", "all"),
        ("w/o triage, Qwen2.5-VL-7B + majority vote", "the same, vote of five samples", "self_consistency", "all"),
    ]),
    "12": ("Parts added one after the other", [
        ("base", "untrained policy, no panel", "no_panel", "all"),
        ("+ triage", "untrained attending with the routed panel", "untrained_panel", "all"),
        ("+ curriculum RL", "schedule as printed", "paper_schedule", "all"), (None, "recommended recipe", "trained", "all"),
    ]),
    "14": ("Updates of triage doctor and attending", [
        ("independent", "recommended recipe, triage trained first", "trained", "all"),
        ("simultaneous", "a third of the triage updates before each stage, cases sent anew", "simultaneous", "all"),
    ]),
}  # fmt: skip


def paper_cells(table: dict[str, Any], row: str | None) -> str:
    """The paper's printed cells of a row, in its order of columns."""
    return " / ".join("-" if value is None else f"{value:g}" for value in table["rows"][row]) if row else ""


def by_difficulty(panels: dict[str, Any]) -> list[str]:
    """Figure 4: accuracy by difficulty, of the main systems."""
    heads = [f"{p}, {k}" for p in panels for k in ("easy", "medium", "hard")]
    lines = ["\n## Figure 4: by difficulty\n", f"| system | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for system in ("no_panel", "untrained_panel", "majority_vote", "sft", "paper_schedule", "trained", "ideal_reader"):
        cells = [with_interval(p[system][k]["mean"], p[system][k]["ci"]) for p in panels.values() for k in ("easy", "medium", "hard")]
        lines.append(f"| {system.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return lines


def kl_sweep(panels: dict[str, Any]) -> list[str]:
    """Figure 6: the printed recipe with every KL weight times a factor."""
    lines = ["\n## Figure 6: KL weight\n\nThe paper varies it stage by stage, on curves without printed values; here the printed recipe with "
             "all three weights (.001, .004, .01) times one factor.\n",
             f"| every KL weight | {' | '.join(panels)} |", "|---|" + "---|" * len(panels)]  # fmt: skip
    for system, title in {"kl_tenth": "x 0.1", "paper_schedule": "as printed", "kl_10": "x 10", "kl_100": "x 100"}.items():
        cells = [with_interval(p[system]["all"]["mean"], p[system]["all"]["ci"]) for p in panels.values()]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return lines


def triage(found: dict[str, Any]) -> list[str]:
    """Tables 7 and 11: the share of cases sent to the right department."""
    stored = json.loads((RunFolder.reference / "results.json").read_text(encoding="utf-8"))["triage"]
    titles = {"base": "untrained", "trained": "trained by GRPO", "random_reward": "reward by a coin", "histogram": "colour histogram"}
    rows = [(title, with_interval(stored[k], stored[f"{k}_ci"])) for k, title in titles.items()]
    more = {"triage_sft": "SFT, as many updates", "triage_two": "GRPO on two labels only (Radiologist, Pathologist)",
            "triage_two, other departments": "the same, on the other five departments"}  # fmt: skip
    rows += [(more[name], with_interval(row["mean"], row["ci"])) for name, row in found["triage"].items() if name in more]
    tables, lines = load_tables()["tables"], ["\n## Tables 7 and 11: triage\n"]
    for key, what in (("7", "right department"), ("11", "final accuracy, by how the triage doctor was trained")):
        told = "; ".join(f"{row} {paper_cells(tables[key], row)}" for row in tables[key]["rows"])
        lines.append(f"The paper's Table {key}, {what} ({', '.join(tables[key]['columns'])}): {told}.\n")
    return [*lines, "Here only the route is compared: what final accuracy hangs on it stands under Table 10.\n",
            f"| triage | right department, n = {stored['n']:,} |", "|---|---|", *(f"| {title} | {cell} |" for title, cell in rows)]  # fmt: skip


def recipes() -> dict[str, int]:
    """Updates of the recommended recipe, and those of them that visit all buckets."""
    stages = load_profile("tiny").attending.recipe
    return {"steps": sum(s.steps for s in stages), "mixed": sum(s.steps for s in stages if set(s.buckets) == set(BUCKETS))}


def main() -> None:
    """Write the page."""
    found, printed = json.loads((DATA / "accuracies.json").read_text(encoding="utf-8")), load_tables()["tables"]
    panels, lines = found["panels"], [INTRO.format(**recipes())]
    for key, (title, rows) in MIRROR.items():
        columns = ", ".join(printed[key]["columns"])
        heads = [f"{name}, n = {p[rows[0][2]][rows[0][3]]['n']:,}" for name, p in panels.items()]
        lines += [f"\n## Table {key}: {title}\n", f"| the paper's row | the paper: {columns} | here | " + " | ".join(heads) + " |"]
        lines.append("|---|---|---|" + "---|" * len(panels))
        for row, here, system, kind in rows:
            shares = [p[system][kind] if system in p else None for p in panels.values()]
            cells = [with_interval(s["mean"], s["ci"]) if s else "not stored" for s in shares]
            lines.append(f"| {row or ''} | {paper_cells(printed[key], row)} | {here} | " + " | ".join(cells) + " |")
        if without := [row for row in printed[key]["rows"] if row not in {row for row, *_ in rows}]:
            lines.append(f"\nWithout a counterpart here: {'; '.join(without)}.")
        if key == "14":
            told = ", ".join(f"{share:.1%} ({panel})" for panel, share in found["together"].items())
            lines.append(f"\nThe two give the same text in {told} of the cases: where a third of its updates teaches the triage doctor to send "
                         "every case as at the end, training by turns is training one after the other.")  # fmt: skip
    OUT.write_text("\n".join([*lines, *by_difficulty(panels), *kl_sweep(panels), *triage(found)]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

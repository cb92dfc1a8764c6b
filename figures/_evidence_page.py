"""The stored evidence in words, for README, and in tables: ``figures/evidence.md``, written by ``make figures``.

Each part gives (sentences, table): baselines, primary contrasts, looks, trust, controls, map.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from mmedlite.evaluation import signed, with_interval
from mmedlite.evidence import DATA
from mmedlite.inference import told_difference, told_p
from mmedlite.looking import IDEAL
from mmedlite.profiles import ROOT

PAGE = ROOT / "figures" / "evidence.md"
Part = tuple[list[str], list[str]]

TITLES = {  # of the systems in rivals.json, in the order of the table
    "trained": "attending, recommended recipe", "any_correct": "any specialist right (oracle)",
    "ideal_reader": "ideal reader (fitted; headroom)",
    "three_weights": "three-weight reader (fitted on validation cases)", "untrained_bias": "untrained, one bias towards the panel",
    "reliability_vote": "vote weighted by reliability", "majority_vote": "majority vote", "vote_of_5": "vote of five answers",
    "specialist_1": "specialist 1 alone", "specialist_2": "specialist 2 alone", "specialist_3": "specialist 3 alone",
    "untrained_panel": "untrained, with panel", "no_panel": "untrained, no panel",
    "self_consistency": "untrained, no panel, vote of five samples",
    "rl_no_panel": "RL without panel", "plain_grpo": "plain GRPO (one stage, one KL weight, no entropy term)",
    "sft": "SFT, answer only", "sft_compute": "SFT, answer only, as much CPU time (more updates)",
    "sft_reasoning": "SFT, true reading of each picture written out (privileged)",
    "rejection": "rejection-sampling fine-tuning", "easy_alone": "GRPO on easy cases alone",
    "medium_alone": "GRPO on medium cases alone", "hard_alone": "GRPO on hard cases alone", "paper_schedule": "schedule as printed",
}  # fmt: skip


def _stored(data: Path, name: str) -> dict[str, Any]:
    file = data / f"{name}.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


def training_noise(data: Path, recipe: str) -> list[str]:
    """How much a difference moves between worlds, for tables of one training each: of two arms of the printed recipe, or of the
    recommended recipe and a reader that is not trained."""
    if not (found := _stored(data, "evidence")):
        return []
    whose, rows = "two arms of the printed recipe", found["primary"]
    if recipe == "recommended":
        whose, rows = "the recommended recipe and an untrained reader", {k: r for k, r in found["recommended"].items() if "printed" not in k}
    spread = [row["sd"] for row in rows.values()]
    return [
        f"\nOne training each, and intervals over cases alone. Between the {len(found['worlds'])} worlds a difference of {whose} has a "
        f"standard deviation of {min(spread):.3f} to {max(spread):.3f}: one within {2 * max(spread):.3f} of 0 may be the luck of world and "
        "training."
    ]


def rivals(data: Path) -> Part:
    """Every baseline beside the trained policy, on both panels."""
    found = _stored(data, "rivals")
    if not found:
        return ["Baselines beside the trained policy: not stored yet (`python -m figures.rivals`)."], []
    n = next(iter(found.values()))["trained"]["n"]
    lines = [
        "\n## Better than what\n",
        f"Every reader of the same stored answers and every policy trained with as many updates, one with more (clinic 0, n = {n:,}, one "
        "training seed, greedy). Difference: trained policy minus it, paired by image, 95 % interval; p: exact McNemar, Holm over the column. "
        "These are accuracies in a simulated clinic; the paper's tables measure other worlds.\n",
        "| system | " + " | ".join(f"{p} | trained minus it | p" for p in found) + " |", "|---|" + "---|---|---|" * len(found),
    ]  # fmt: skip
    for name, title in TITLES.items():
        cells = []
        for rows in found.values():
            row = rows[name]
            against = ["", ""] if name == "trained" else [signed(row["difference"]), told_p(row["p_holm"])]
            cells += [with_interval(row["mean"], row["ci"]), *against]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    said = []
    for panel, rows in found.items():
        alike = [TITLES[n] for n, r in rows.items() if n != "trained" and r["difference"]["low"] <= 0 <= r["difference"]["high"]]
        gap = rows["three_weights"]["difference"]
        word = "is better than" if gap["low"] > 0 else "is worse than" if gap["high"] < 0 else "is not told apart from"
        said.append(
            f"{panel}: the trained policy is not told apart from: {'; '.join(alike) or 'none of the baselines'}. It {word} three fitted "
            f"weights ({signed(gap)})."
        )
    alt = "Trained policy minus every baseline, {} panel; numbers in the table above"
    pictures = " ".join(f"![{alt.format(p)}](drawn/rivals_{p}.png)" for p in found)
    cost = pd.read_parquet(data / "rivals.parquet", columns=[]).attrs["added"]["sft_compute"]["compute"]
    lines.append(f"\nAn update of GRPO took {cost['grpo']:.2f} s of CPU time, one of SFT {cost['sft']:.2f} s (medians of three short trainings "
                 f"by turns), so that {cost['updates']:,} updates of SFT cost as much as the recipe.")  # fmt: skip
    return said, [*lines, *training_noise(data, "recommended"), f"\n{pictures}"]


def worlds(data: Path) -> Part:
    """The primary contrasts of the analysis plan."""
    found = _stored(data, "evidence")
    lines = ["\n## Order, hard cases, entropy, KL\n"]
    plan = "`figures/analysis_plan.md` was committed before the first run; its hash seeds the worlds"
    if not found:
        return [f"Order, hard cases, entropy, KL: {plan}. None of them is finished yet (`python -m figures.worlds`)."], []
    done, planned = len(found["worlds"]), found["planned"]
    rest = "" if done == planned else "; no verdict is given before all of them are"
    lines += [
        f"{plan}. {done} of {planned} worlds are there{rest}. Printed recipe, one thing changed, at equal updates; test accuracy, mean over "
        "worlds, interval from a bootstrap over worlds and images.\n",
        "| contrast, panel | difference | exact p | Holm | detectable at Holm's first step | verdict |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, row in found["primary"].items():
        p = f"{told_p(row['p'])} | {told_p(row['p_holm'])} | {told_difference(row['detectable'])}"
        lines.append(f"| {name} | {signed(row)} | {p} | {row['verdict']} |")
    lines.append("\n![Primary contrasts, a dot a world; numbers in the table above](drawn/contrasts.png)")
    panels = [name for name in found["accuracy"] if name.startswith("all, ")]
    lines += ["\nExploratory: mean accuracy of every arm over the worlds.\n",
              "| arm | " + " | ".join(p.removeprefix("all, ") for p in panels) + " |", "|---|" + "---|" * len(panels)]  # fmt: skip
    lines += [f"| {arm.replace('_', ' ')} | " + " | ".join(f"{found['accuracy'][p][arm]:.3f}" for p in panels) + " |"
              for arm in found["accuracy"][panels[0]]]  # fmt: skip
    kinds = ("yes/no questions", "four options")
    lines += ["\nExploratory: the same contrasts on each kind of question, unadjusted intervals.\n",
              "| contrast, panel | " + " | ".join(kinds) + " |", "|---|---|---|"]  # fmt: skip
    for name in found["primary"]:
        contrast, panel = name.rsplit(", ", 1)
        lines.append(f"| {name} | " + " | ".join(signed(found["by kind"][f"{contrast}, {kind}, {panel}"]) for kind in kinds) + " |")
    others = {f"recommended recipe {name}": row for name, row in found["recommended"].items()} | found["exploratory"]
    lines += [] if found["exploratory"] else ["\nThe plan's exploratory arms (`figures/worlds.py`) are not finished in any world yet."]
    lines += [] if found["redrawn"] else ["\nThe plan's worlds with models of their own (`figures/redrawn.py`) are not run yet."]
    lines += ["\nExploratory: other recipes.\n", "| difference, panel | over the worlds | worlds |", "|---|---|---|"]
    lines += [f"| {name.replace('_', ' ')} | {signed(row)} | {len(row['seeds'])} |" for name, row in others.items()]
    if found["redrawn"]:
        there = len(next(iter(found["redrawn"].values()))["seeds"])
        lines += [f"\nBeside them, not pooled: {there} further worlds in which policy, specialists and triage doctor are drawn anew too.\n",
                  "| contrast, panel | difference | each world |", "|---|---|---|"]  # fmt: skip
        for name, row in found["redrawn"].items():
            lines.append(f"| {name} | {signed(row)} | {', '.join(f'{w:+.3f}' for w in row['worlds'])} |")
    verdicts = "; ".join(f"{name}: {row['verdict']}" for name, row in found["primary"].items()) if done == planned else "open"
    return [f"Order, hard cases, entropy, KL ({done} of {planned} unseen worlds): {verdicts}."], lines


CONTROLS = {
    "reward_random": "reward: a coin", "reward_format": "reward: the form alone", "reward_random_label": "reward: a random label a case",
    "reward_majority": "reward: the panel's majority",
    "paper_schedule": "printed recipe", "hard_redrawn": "printed, hard stage: opinions drawn again",
    "hard_swapped": "printed, hard stage: panels of other hard cases",
    "kl_tenth": "printed, every KL weight x 0.1", "kl_10": "printed, every KL weight x 10", "kl_100": "printed, every KL weight x 100",
    "labels_wrong_2": "printed, 2 % of labels wrong", "labels_wrong_5": "printed, 5 % of labels wrong",
    "labels_wrong_10": "printed, 10 % of labels wrong",
}  # fmt: skip


def controls(data: Path) -> Part:
    """Rewards without labels, and what the hard stage needs."""
    found = _stored(data, "controls")
    if not found:
        return ["Controls of the training: not stored yet (`python -m figures.controls`)."], []
    wrong = found.pop("wrong_labels")
    n = next(iter(found.values()))["trained"]["n"]
    lines = [
        "\n## Controls of the training\n",
        f"Equal updates, clinic 0, one training seed, n = {n:,}. Rises: minus the untrained policy with panel; against: minus the unchanged "
        "recipe (recommended for rewards, printed for the rest); paired, 95 %.\n",
        "| arm | " + " | ".join(f"{p} | rises | against its recipe" for p in found) + " |", "|---|" + "---|---|---|" * len(found),
    ]  # fmt: skip
    for name, title in CONTROLS.items():
        cells = [cell for rows in found.values() for cell in _arm(rows[name])]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    rewards = [n for n in CONTROLS if n.startswith("reward_")]
    risen = [f"{CONTROLS[n]} ({p})" for p, rows in found.items() for n in rewards if rows[n]["rises"]["low"] > 0]
    named = ", ".join(risen) or "none of the four controls"
    said = [f"Held-out accuracy rises with no right label in the reward (stages and coefficients still follow the buckets), under: {named}."]
    told = "; ".join(f"{p}, {arm.rsplit('_', 1)[1]} %: " + ", ".join(f"{b} {s:.0%}" for b, s in shares.items())
                     for p, arms in wrong.items() for arm, shares in arms.items())  # fmt: skip
    return said, [*lines, *training_noise(data, "printed"), f"\nShare of wrong labels in each bucket: {told}."]


def _arm(row: dict[str, Any]) -> list[str]:
    against = signed(row["against"]) if row["against"]["low"] or row["against"]["high"] else ""
    return [with_interval(row["mean"], row["ci"]), signed(row["rises"]), against]


CHANGES = {
    "blank": "blank picture", "shuffled": "pixels shuffled", "swapped": "picture of another case", "panel_removed": "panel removed",
    "panel_swapped": "panel of another case", "panel_adversarial": "panel wrong, unanimous", "panel_permuted": "panel in another order",
}  # fmt: skip


def looks(data: Path) -> Part:
    """Image sensitivity and panel reliance before and after each stage."""
    found = _stored(data, "looks")
    if not found:
        return ["Does it look? Not stored yet (`python -m figures.looks`)."], []
    n = next(iter(found.values()))["n"]
    lines = [f"\n## Does it look?\n\nShare of answers that change with the picture or the panel alone (test cases, n = {n}, greedy); in "
             "brackets the accuracy. In a minimal pair another finding or place is drawn, all else kept: the share that follows it, and in "
             "brackets the share that stays with the old answer, for which the panel, kept too, was asked. "
             "The ideal reader is a classifier fitted on training cases: how far picture and panel can be used. The "
             "prompt shows a panel's options in one fixed sentence, so that wording tells nobody who is right.\n"]  # fmt: skip
    heads = [(p, s) for p, rows in found.items() for s in rows["changes"]]
    lines += ["| change | " + " | ".join(f"{p}, {s}" for p, s in heads) + " |", "|---|" + "---|" * len(heads)]
    cells = [f"({found[p]['own'][s]:.3f})" for p, s in heads]
    lines.append("| none | " + " | ".join(cells) + " |")
    for change, title in CHANGES.items():
        rows = [found[p]["changes"][s][change] for p, s in heads]
        lines.append(f"| {title} | " + " | ".join(f"{r['changed']:.3f} ({r['accuracy']:.3f})" for r in rows) + " |")
    pairs = [found[p]["changes"][s]["pair"] for p, s in heads]
    lines.append(f"| minimal pair, n = {pairs[0]['n']} | " + " | ".join(f"{r['follows']:.3f} ({r['stays']:.3f})" for r in pairs) + " |")
    said = []
    for panel, rows in found.items():
        noise, last = rows["noise"], [name for name in rows["changes"] if name != IDEAL][-1]
        word = "flatter than" if noise["flatter"]["low"] > 0 else "steeper than" if noise["flatter"]["high"] < 0 else "not told apart from"
        said.append(
            f"{panel}: with a share of the panel's answers corrupted (0 to 100 %), the accuracy of the trained "
            f"policy falls with a slope of {-noise['slope'][last]:.3f}, that of the untrained with "
            f"{-noise['slope']['untrained']:.3f}: it is {word} the untrained one's ({signed(noise['flatter'])}, paired)."
        )
    return said, lines


def trust(data: Path) -> Part:
    """How well the policies know when the panel is right."""
    found = _stored(data, "trust")
    if not found:
        return ["Calibration of the trust decision: not stored yet (`python -m figures.trust`)."], []
    lines = [
        "\n## Does it know when to trust?\n",
        "Probability that a policy gives the majority's option, after its own reasoning, held against how often the majority is right (test "
        "cases with a majority). Error: mean distance of the two over ten groups of equal size; Brier score: 0 is perfect.\n",
        "| panel, policy | n | mean probability | majority right | calibration error | Brier score |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    said = []
    for panel, rows in found.items():
        for policy, r in rows.items():
            lines.append(
                f"| {panel}, {policy} | {r['n']:,} | {r['probability']:.3f} | {r['right']:.3f} | {r['error']:.3f} | {r['brier']:.3f} |"
            )
        before, after = rows["untrained"], rows["trained"]
        said.append(f"{panel}: calibration error of the trust decision {before['error']:.3f} before training and {after['error']:.3f} after, "
                    f"Brier score {before['brier']:.3f} and {after['brier']:.3f}.")  # fmt: skip
    lines.append("\n![Probability of following the majority against how often it is right; numbers in drawn/trust.md](drawn/trust.png)")
    return said, lines


def gain_map(data: Path) -> Part:
    """Gain over the three-weight reader by accuracy of the panel and correlation of its errors."""
    found = _stored(data, "map")
    if not found:
        return ["Where training pays (map): not stored yet (`python -m figures.gain_map`)."], []
    cells = found["cells"].values()
    columns, rows = sorted({c["accuracy"] for c in cells}), sorted({c["correlation"] for c in cells}, reverse=True)
    by_dials = {(c["accuracy"], c["correlation"]): signed(c["gain"]) for c in cells}
    lines = [
        "\n## Where training pays\n",
        "Trained policy (recommended recipe, one training seed) minus the three-weight reader, paired by image, 95 %; dialled panels on "
        f"the cases of clinic 0, n = {next(iter(cells))['gain']['n']:,}. Columns: accuracy of one specialist; rows: correlation of two "
        "specialists' errors. Dialled errors leave no trace in the picture; in the clinic a marker goes with many of them.\n",
        "| | " + " | ".join(f"{a:.2f}" for a in columns) + " |", "|---|" + "---|" * len(columns),
        *(f"| {r:.1f} | " + " | ".join(by_dials.get((a, r), "no data") for a in columns) + " |" for r in rows), "",
        *(f"- The clinic's {name} panel (accuracy {c['accuracy']:.2f}, correlation {c['correlation']:.2f}): {signed(c['gain'])}."
          for name, c in found["clinic"].items()),
        *(f"- {name} (paper): accuracy {c['accuracy']:.2f}, correlation {c['correlation']:.2f}, implied by Table 3 if difficulty follows a "
          "beta distribution; nothing is measured there." for name, c in found["paper"].items()),
        "\n![Gain over three weights against accuracy of the panel and correlation of its errors; numbers in the table above]"
        "(drawn/gain_map.png)",
    ]  # fmt: skip
    better, worse = (sum(sign * c["gain"][end] > 0 for c in cells) for sign, end in ((1, "low"), (-1, "high")))
    said = (
        f"With dialled panels ({len(cells)} settings of accuracy and correlation, one training each) the trained policy is better than three "
        f"fitted weights in {better}, worse in {worse}, not told apart in {len(cells) - better - worse} (95 % intervals, paired, not "
        "adjusted for their number)."
    )
    return [said], [*lines, *training_noise(data, "recommended")]


def in_short(data: Path) -> str:
    """For README: the rivals that no panel tells apart from the recommended recipe, and where three weights do as well."""
    alike = [{n for n, r in rows.items() if n != "trained" and r["difference"]["low"] <= 0 <= r["difference"]["high"]}
             for rows in _stored(data, "rivals").values()]  # fmt: skip
    if not alike:
        return ""
    names = "; ".join(title for n, title in TITLES.items() if n in set.intersection(*alike))
    return (f"\nNot told apart from the recommended recipe on either panel, at equal updates, one training each: {names or 'no rival'}. "
            f"{gain_map(data)[0][0]}")  # fmt: skip


def main() -> list[str]:
    """Write the page; returns the sentences."""
    said, lines = [], ["# The evidence, in tables\n\nFilled by `make figures` from `figures/data/`."]
    for part in (rivals, worlds, looks, trust, controls, gain_map):
        sentences, table = part(DATA)
        said += [f"- {sentence}" for sentence in sentences]
        lines += [*table, "", *sentences] if table else sentences
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return said

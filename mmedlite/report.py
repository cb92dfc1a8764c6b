"""``report.html`` of a run: a reproducibility summary, results with their intervals, the claims ledger; written by ``verify``.

One page without scripts; its one link leads to the attending's chair, which is put beside it. Every number in it is read from the run, the
stored evidence or the profile.
"""

from __future__ import annotations

import html
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmedlite import evidence, looking
from mmedlite.claims import audited, ledger, of_clinic, of_tables, of_worlds
from mmedlite.evaluation import signed, with_interval
from mmedlite.paper_audit import audit, load_tables
from mmedlite.profiles import ROOT, InputError, Profile, load_profile
from mmedlite.run_folder import RunFolder
from mmedlite.verify import broken_seal, changed_files
from mmedlite.verify_stamps import read_object

CHAIR = ROOT / "figures" / "drawn" / "chair.html"
STYLE = """body{font:16px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#111}
table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #999;padding:.25em .5em;text-align:left;vertical-align:top}
td{overflow-wrap:anywhere}.wide{overflow-x:auto}.wide td{overflow-wrap:normal}
caption{text-align:left;font-style:italic;padding:.3em 0}"""
SCOPE = """The paper (arXiv 2506.00555, ICLR 2026) claims that an attending physician, trained with GRPO on easy, then medium, then hard
cases with an entropy coefficient and a KL weight that grow, learns when to trust three specialists and when to overrule them. It released
no code, weights or specialist answers. This run looks at the mechanism in a simulated clinic with a model of about a million parameters. It
reproduces none of the paper's numbers, and nothing in it is fit for clinical use."""
EASY = ("The reward, the buckets, the stages and the coefficients are stated precisely enough to write them down.",
        "GRPO with a per-sample entropy and KL weight is a short change of a public trainer.",
        "The printed tables can be audited without any model.")  # fmt: skip
DIFFICULT = ("Of the prompts only the attending's is printed, and no specialist answer or seed: the paper's panel cannot be rebuilt.",
             "Epochs, steps, sequence lengths and the KL reference are not stated.",
             "No row for the vote of the specialists: whether the attending adds to it cannot be read off the paper.")  # fmt: skip
# question, the kit's choice; the measured effect is filled from stored numbers where there is one
QUESTIONS = {
    "How many epochs or steps has each stage?": "printed recipe: one epoch each; recommended: as in the settings above",
    "Are easy and medium cases visited again in the hard stage?": "printed recipe: no; recommended: yes",
    "Are buckets made from the answers that the prompt shows?": "yes",
    "Is the entropy averaged over tokens or completions?": "over a completion's tokens, then over completions",
    "Is the KL reference the base or the stage before?": "the policy at the start of the stage",
    "LoRA or full weights?": "LoRA",
    "Does accuracy count without the form?": "yes",
    "What decides a tied vote?": "the lowest sample index",
}
PATH = ("Two minutes: the ledger below; each row names what would refute it, what was run and the command.",
        "Five: <code>make verify</code> scores and counts the stored answers again, and must find a changed copy.",
        "Five: notebook 06, where three liars change a stored run and are found, and the audit of the paper's arithmetic.",
        "Three: <code>figures/analysis_plan.md</code>, older than its first run, beside <code>figures/data/evidence.json</code>.")  # fmt: skip


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """An HTML table; every cell is escaped."""
    top = "".join(f'<th scope="col">{html.escape(str(h))}</th>' for h in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><caption>{html.escape(caption)}</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _items(lines: Sequence[str], tag: str = "ul") -> str:
    return f"<{tag}>" + "".join(f"<li>{line}</li>" for line in lines) + f"</{tag}>"


def effects(panels: Sequence[str], worlds: Mapping[str, Any], controls: Mapping[str, Any]) -> dict[str, str]:
    """The measured effect of the kit's choices, by open question; worlds, controls: as ``evidence`` counts them."""
    told = {}
    if again := {p: controls[p]["hard_redrawn"]["against"] for p in panels if p in controls}:
        told["Are buckets made from the answers that the prompt shows?"] = (
            "printed recipe, opinions of the hard stage drawn again minus as they were, one training (its luck may be larger): "
            + "; ".join(f"{p} {signed(r)}" for p, r in again.items())
        )
    for question, contrast in (("How many epochs or steps has each stage?", None),
                               ("Are easy and medium cases visited again in the hard stage?", "hard cases rehearsed")):  # fmt: skip
        rows = {p: worlds["primary"][f"{contrast}, {p}"] if contrast else worlds["recommended"][f"against printed_as_is, {p}"]
                for p in panels if worlds}  # fmt: skip
        if rows:
            what = "rehearsed minus printed" if contrast else "not measured alone; recommended minus printed, which also rehearses"
            told[question] = f"{what}, {len(worlds['worlds'])} worlds: " + "; ".join(f"{p} {signed(r)}" for p, r in rows.items())
    return told


def results_table(attending: Mapping[str, Any]) -> str:
    """Test accuracy of every system on every panel."""
    systems = list(dict.fromkeys(s for numbers in attending.values() for s in numbers if f"{s}_ci" in numbers))
    cells = [[s, *(with_interval(n[s], n[f"{s}_ci"]) if s in n else "" for n in attending.values())] for s in systems]
    n = next(iter(attending.values()))["n"]
    return table(f"Greedy test accuracy with Wilson 95 % intervals, n = {n:,}; one training seed.", ["system", *attending], cells)


def settings(profile: Profile) -> list[tuple[str, Any]]:
    """The settings of the recommended recipe."""
    grpo, recipe = profile.grpo, profile.attending.recipe
    stages = [(f"stage {s.name}", f"{s.steps} updates on {', '.join(s.buckets)}; gamma {s.gamma}, beta {s.beta}") for s in recipe]
    return [
        ("policy", profile.policy), ("LoRA rank, alpha", f"{profile.lora.r}, {profile.lora.alpha}"), ("learning rate", grpo.learning_rate),
        ("prompts an update, rollouts a prompt", f"{grpo.prompts_per_step}, {grpo.generations}"), ("temperature", grpo.temperature), *stages,
    ]  # fmt: skip


def page(run: RunFolder, profile: Profile | None, problems: Sequence[str]) -> str:
    """The whole page.

    Args:
        run: whose results.json has the section "attending". profile: None where its file is not one of the kit's.
        problems: what ``verify`` found.
    """
    results, worlds = run.results(), evidence.count()
    panels = list(results["attending"])
    claims = [*audited(audit(load_tables())), *of_clinic(run, panels, evidence.rivals()),
              *of_tables(evidence.differences(), looking.count()), *(of_worlds(worlds) if worlds else [])]  # fmt: skip
    made = effects(panels, worlds, evidence.controls())
    changed = changed_files(evidence.DATA) + broken_seal(evidence.DATA)  # whether its numbers follow: verify figures/data
    versions = read_object(run.folder / "manifest.json").get("environment") or {}
    told = ("minutes", "cpu_minutes", "peak_memory_gib", "opinions_asked")
    cost = [(name.replace("_", " "), results[name]) for name in told if name in results]
    looks = [
        ("recipe", "chosen on validation cases of clinic 0; the profile names the learning rates tried for SFT and without the panel; how many "
                   "recipes were tried was not counted"),
        ("test cases of clinic 0", "looked at once by each system here; the same cases served while the kit was built"),
        ("worlds of the analysis plan", f"once by each arm; {len(worlds['worlds']) if worlds else 0} of {evidence.WORLDS} run"),
    ]  # fmt: skip
    parts = [
        f'<p><a href="{CHAIR.name}">Sit in the attending\'s chair</a> (of the stored reference run)</p>',
        "<h1>Reproducibility summary</h1>", f"<p>{html.escape(SCOPE)}</p>",
        f"<p>Verification of this run: {len(problems)} problems. Stored evidence that the ledger reads (<code>figures/data</code>): "
        f"{len(changed)} problems.</p>" + _items([html.escape(p) for p in [*problems[:20], *changed[:20]]]),
        "<h2>Fifteen minutes for a reviewer</h2>", _items(PATH, "ol"),
        "<h2>Methodology</h2>", table("Settings of the recommended recipe.", ("setting", "value"), settings(profile)) if profile else "",
        table("Made from.", ("what", "hash or value"), [(k, v) for k, v in (run.facts | versions).items() if not isinstance(v, dict)]),
        "<h2>Results</h2>", results_table(results["attending"]),
        f'<div class="wide" role="region" aria-label="Ledger of claims" tabindex="0">{ledger(claims)[0]}</div>',  # by keys
        "<h2>What was easy</h2>", _items(EASY), "<h2>What was difficult</h2>", _items(DIFFICULT),
        "<h2>What the authors would have to tell us</h2>",
        table("Open questions, with the kit's choice and what it changes (test accuracy).", ("question", "our choice", "measured effect"),
              [(q, choice, made.get(q, "not measured")) for q, choice in QUESTIONS.items()]),
        "<h2>Compute, tuning, looks</h2>", table("Compute of this run.", ("what", "number"), cost), table("Looks.", ("at", "how often"), looks),
    ]  # fmt: skip
    head = f'<meta charset="utf-8"><title>MMedLite report</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def write_report(folder: Path, problems: Sequence[str]) -> Path | None:
    """Write ``report.html`` into the folder of a run whose attending was evaluated; None for any other folder."""
    file = folder / "run.json"
    facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    run = RunFolder(folder, {"cases_sha256": None, **facts})
    if not facts or "attending" not in run.results():
        return None
    try:
        profile = load_profile(str(facts.get("profile")))
    except InputError:  # a profile of the user's own, known by its hash only
        profile = None
    shutil.copy(CHAIR, folder / CHAIR.name)
    (file := folder / "report.html").write_text(page(run, profile, problems), encoding="utf-8")
    return file

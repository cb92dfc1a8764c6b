"""The claims ledger: what the paper says and where, what would refute it, what was run, and what may be said of it.

A verdict bears its kind. *Audit* is arithmetic on printed numbers, *mechanism* the simulated clinic, *reproduction* the paper's data and
backbone; only the last may say that a claim of the paper holds.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any, NamedTuple

from mmedlite.evaluation import signed
from mmedlite.evidence import PRIMARY, TABLES
from mmedlite.inference import told_difference, told_p
from mmedlite.paper_audit import Finding
from mmedlite.profiles import InputError
from mmedlite.run_folder import RunFolder
from mmedlite.summary import difference, shifted_numbers, trust_numbers

VERDICTS = {
    "audit": ("adds up", "does not add up", "open"),
    "mechanism": ("seen", "not seen", "opposite seen", "depends on the panel", "open"),
    "reproduction": ("holds", "does not hold"),
}


class Claim(NamedTuple):
    """One row of the ledger."""

    claim: str
    where: str  # in the paper
    refuted_by: str
    ran: str  # what was run, with n and worlds
    evidence: str
    kind: str
    verdict: str
    command: str


# Findings of the audit that stand in the ledger: begin of what is checked, where.
AUDITED = (
    ("All: the buckets", "Table 3"), ("Test: All is", "Table 3"), ("OOD", "Table 1, MMedAgent-RL-7B"), ("OOD", "SFT w/o"), ("OOD", "SFT w/ "),
    ("VQA-RAD: k of 251", "Table 1, MMedAgent-RL-7B"), ("VQA-RAD: k of at most", "Table 7, trained"), ("Average gain of 18.4", "v1"),
    ("Average gain of 20.7", "v2"), ("Average gain of 23.6", ""),
)  # fmt: skip
# claim, where, system, its rival
CLINIC = (
    ("Training beats the vote of the same panel", "no row for the vote", "trained", "majority_vote"),
    ("Training beats the same policy before training", "Table 2", "trained", "untrained_panel"),
    ("Training with the panel beats training without it", "Table 2, w/o Specialists", "trained", "rl_no_panel"),
    ("RL beats SFT on the same cases", "Table 5", "trained", "sft"),
    ("RL beats SFT that trains for as long", "not in the paper", "trained", "sft_compute"),
    ("RL beats SFT with each picture's true reading written out (privileged)", "Table 5", "trained", "sft_reasoning"),
    ("RL beats rejection sampling", "not in the paper", "trained", "rejection"),
    ("The staged recipe beats plain GRPO (one stage, one KL weight, no entropy term)", "no such run printed", "trained", "plain_grpo"),
    ("Training beats a reader of three weights", "not in the paper", "trained", "three_weights"),
    ("The schedule as printed beats the vote", "schedule: Section 3.3; no row for the vote", "paper_schedule", "majority_vote"),
    ("The entropy bonus helps", "App. F.2", "trained", "entropy_off"),
)
OF_TABLES = {  # comparison of evidence.TABLES: claim, where
    "trained routing over zero-shot": ("Routes of the trained triage doctor give better answers than the untrained one's", "Table 10"),
    "trained routing over random": ("Routes of the trained triage doctor give better answers than random ones", "Table 10"),
    "zero-shot routing over random": ("Routes of the untrained triage doctor give better answers than random ones", "Table 10, 4 of 5 sets"),
    "all wrong, training": ("Where every specialist is wrong, training beats the same policy before training", "Table 9"),
    "all wrong, SFT": ("Where every specialist is wrong, RL beats SFT", "Table 9"),
    "all wrong, experts": ("Where every specialist is wrong, the untrained policy gains by their answers", "Table 9"),
    "all wrong, base": ("Where every specialist is wrong, training beats the untrained policy that sees no answer", "Table 9"),
    "updates by turns": ("Updating both doctors by turns beats updating them one after the other", "Table 14, by 0.1 points"),
    "test-time scaling": ("A vote of five samples of the trained policy beats its one greedy answer", "Table 1, + majority vote"),
}
PARTS = {  # primary contrast: claim, where
    "order at equal data": ("Easy, medium, hard beats the same visits shuffled", "implied by Section 3.3; no such run printed"),
    "hard cases in": ("A last stage of hard cases beats one of easy and medium ones", "Table 2, + Hard"),
    "hard cases rehearsed": ("Rehearsing easy and medium cases among the hard ones changes accuracy", "not in the paper"),
    "entropy term": ("The entropy term raises accuracy", "Section 3.3, App. F.2"),
    "KL term": ("The KL term raises accuracy", "App. G.3.2, Fig. 6"),
}


def audited(findings: Sequence[Finding]) -> list[Claim]:
    """The rows of the audit."""
    found = [next(f for f in findings if f.what.startswith(what) and where in f.where) for what, where in AUDITED]
    claims = []
    for f in found:
        evidence = f"printed {f.printed:g}: {f.computation}"
        claim, refuted = f.what + (", in one pass" if f.kind == "fraction" else ""), "printed numbers that give another one"
        older = "of v1" in f.where or "of v2" in f.where  # an abstract whose tables are not at hand: those are of v3
        verdict = "open" if older else VERDICTS["audit"][not f.agrees]
        where = f.where + ("; its own tables are not at hand" if older else "")
        claims.append(Claim(claim, where, refuted, "arithmetic", evidence, "audit", verdict, "notebook 06"))
    return claims


def mechanism(claim: str, where: str, found: Mapping[str, Mapping[str, Any]], ran: str, command: str = "make demo") -> Claim:
    """A row about one clinic; found: panel -> {mean, low, high}. Seen where the interval lies above 0 on every panel."""
    kinds = {"seen" if f["low"] > 0 else "opposite seen" if f["high"] < 0 else "not seen" for f in found.values()}
    verdict = kinds.pop() if len(kinds) == 1 else "depends on the panel"
    evidence = "; ".join(f"{panel} {signed(f)}" for panel, f in found.items())
    refuted = "a paired 95 % interval that is not above 0, on either panel"
    return Claim(claim, where, refuted, f"{ran}, one training seed", evidence, "mechanism", verdict, command)


def of_clinic(run: RunFolder, panels: Sequence[str], wide: Mapping[str, Mapping[str, Any]]) -> list[Claim]:
    """The rows about a run's clinic, from the run or, where it is clinic 0, the stored one.

    Args:
        wide: panel -> system -> {"difference": ...} of the stored rivals; they serve clinic 0 only.
    """
    stored = bool(run.reference_results())  # the reference run saw the same cases
    whose = "clinic 0" if stored else "cases of this run"
    ran = f"{whose}, n = {len(run.rows(f'{panels[0]}/test/trained')):,}"
    claims = []
    for claim, where, system, rival in CLINIC:
        found, command = {}, "make demo"
        for panel in panels:
            names = [f"{panel}/test/{s}" for s in (system, rival)]
            if all(map(run.has_rows, names)):
                found[panel] = difference(*map(run.rows, names))
            elif stored and system == "trained" and rival in wide.get(panel, {}):
                found[panel], command = wide[panel][rival]["difference"], "python -m figures.rivals"
        if found:
            claims.append(mechanism(claim, where, found, ran, command))
    above = {p: {**t, "mean": t["above_curve"]} for p, t in ((p, trust_numbers(run, p)) for p in panels) if not isnan(t["low"])}
    if above:  # a height needs panels that are unanimous and right, and such that are unanimous and wrong
        claims.append(mechanism("The policy learned to look: it lies above the untrained bias curve", "Fig. 4, in part", above, ran))
    shifted = {p: shifted_numbers(run, p) for p in panels if run.has_rows(f"{p}/shifted/trained")}
    if shifted:
        gains = {f"{p}, over {s['gain']['over']}": s["gain"] for p, s in shifted.items()}
        n = next(iter(shifted.values()))["n"]
        claims.append(mechanism("The gain survives a shifted clinic", "Table 1, OOD", gains, f"{whose}, shifted, n = {n:,}"))
    return claims


def of_tables(differences: Mapping[str, Mapping[str, Any]], looked: Mapping[str, Any]) -> list[Claim]:
    """The rows about stored comparisons of clinic 0.

    Args:
        differences: as from ``evidence.differences``. looked: as from ``looking.count``.
    """
    rows = [(*OF_TABLES[name], found, TABLES[name][0]) for name, found in differences.items()]
    if looked:
        flatter = {panel: {**part["noise"]["flatter"], "n": part["n"]} for panel, part in looked.items()}
        rows.append(("Wrong answers of the panel cost the trained policy less than the untrained one", "not in the paper", flatter, "looks"))
    claims = []
    for claim, where, found, script in rows:
        n = " and ".join(dict.fromkeys(f"{f['n']:,}" for f in found.values()))
        claims.append(mechanism(claim, where, found, f"clinic 0, n = {n}", f"python -m figures.{script}"))
    return claims


def of_worlds(evidence: Mapping[str, Any]) -> list[Claim]:
    """The rows about the primary contrasts of the analysis plan; open until every planned world is there."""
    claims, done, planned = [], len(evidence["worlds"]), evidence["planned"]
    for name, (claim, where) in PARTS.items():
        found = {key.rsplit(", ", 1)[1]: row for key, row in evidence["primary"].items() if key.startswith(f"{name}, ")}
        verdicts = {row["verdict"] for row in found.values()}
        verdict = "open" if done < planned else verdicts.pop() if len(verdicts) == 1 else "depends on the panel"
        least = {p: told_difference(row["detectable"]) for p, row in found.items()}
        told = "; ".join(f"{p} {signed(row)}, Holm p {told_p(row['p_holm'])}, detectable {least[p]}" for p, row in found.items())
        refuted = "Holm's p of .05 or more" + (", or the other sign" if PRIMARY[name][2] else "")
        ran = f"printed recipe, one change, {done} of {planned} unseen worlds"
        claims.append(Claim(claim, where, refuted, ran, told, "mechanism", verdict, "python -m figures.worlds"))
    return claims


def ledger(claims: Sequence[Claim]) -> tuple[str, str]:
    """HTML table of claims and its alt text.

    Raises:
        InputError: a verdict that does not suit its kind, as "holds" beside a number of the simulated clinic; a number of the clinic or of
            its worlds that is called a reproduction.
    """
    for row, claim in enumerate(claims):
        if claim.kind == "reproduction" and any(word in claim.ran for word in ("clinic", "worlds", "cases of this run")):
            raise InputError("a number of the simulated clinic reproduces nothing of the paper", f"claim {row}", "call its kind mechanism")
        if claim.verdict not in VERDICTS.get(claim.kind, ()):
            choices = "; ".join(f"{kind}: {', '.join(words)}" for kind, words in VERDICTS.items())
            raise InputError(f"a claim of kind '{claim.kind}' cannot be '{claim.verdict}'", f"claim {row}", f"use {choices}")
    head = "".join(f'<th scope="col">{name.replace("_", " ")}</th>' for name in Claim._fields)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in claim) + "</tr>" for claim in claims)
    alt = f"Ledger of {len(claims)} claims: " + "; ".join(f"{c.claim}: {c.verdict} ({c.kind})" for c in claims) + "."
    return f"<table><caption>{html.escape(alt)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>", alt

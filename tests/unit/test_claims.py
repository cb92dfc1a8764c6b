"""The ledger says no more than its kind allows, and its rows follow from stored numbers."""

from __future__ import annotations

from typing import Any

import pytest

from mmedlite import claims, evidence, paper_audit
from mmedlite.claims import Claim
from mmedlite.profiles import InputError, load_profile
from mmedlite.run_folder import RunFolder

CLAIM = Claim("Order <b>matters</b>", "Table 12", "p of .05", "10 worlds", "+0.01", "mechanism", "not seen", "python -m figures.worlds")


def test_ledger_is_escaped_and_keeps_to_its_kind() -> None:
    page, alt = claims.ledger([CLAIM, CLAIM._replace(kind="audit", verdict="adds up")])
    assert "&lt;b&gt;" in page and "<b>" not in page and "<caption>" in page and page.count("<tr>") == 3
    assert page.count("</td>") == 2 * len(Claim._fields) and "Order <b>matters</b>: not seen (mechanism)" in alt


@pytest.mark.parametrize(("kind", "verdict"), [("mechanism", "holds"), ("mechanism", "does not hold"), ("audit", "holds"),
                                               ("audit", "seen"), ("mechanism", ""), ("opinion", "seen")])  # fmt: skip
def test_a_number_of_the_clinic_never_holds(kind: str, verdict: str) -> None:
    with pytest.raises(InputError, match="claim 1"):
        claims.ledger([CLAIM, CLAIM._replace(kind=kind, verdict=verdict)])


def test_a_number_of_the_clinic_is_no_reproduction() -> None:
    paper = CLAIM._replace(kind="reproduction", verdict="holds", ran="gpu-7b on VQA-RAD, n = 251")
    claims.ledger([paper])
    with pytest.raises(InputError, match="reproduces nothing"):
        claims.ledger([paper._replace(ran="clinic 0, n = 3,200, one training seed")])
    stored = RunFolder(RunFolder.reference, {"cases_sha256": RunFolder._results_in(RunFolder.reference)["cases_sha256"]})
    rows = claims.of_clinic(stored, ["diverse"], evidence.rivals()) + claims.of_tables(evidence.differences(), {})
    rows += claims.of_worlds(counted(10))
    for row in rows:
        with pytest.raises(InputError, match="reproduces nothing"):
            claims.ledger([row._replace(kind="reproduction", verdict="holds")])


def test_every_finding_of_the_ledger_is_in_the_audit() -> None:
    rows = claims.audited(paper_audit.audit(paper_audit.load_tables()))
    assert len(rows) == len(claims.AUDITED)
    told = {(row.claim[:15], row.where[:8]): row.verdict for row in rows}
    assert told["All: the bucket", "Table 3"] == "does not add up" and {r.verdict for r in rows} == {"adds up", "does not add up", "open"}
    assert {row.verdict for row in rows if "of v1" in row.where or "of v2" in row.where} == {"open"}
    assert any("Table 7, trained" in row.where for row in rows) and "of 104 readings" in rows[-1].evidence
    assert rows[-1].evidence.count("with rounding") == 1 + int(rows[-1].evidence.split("other rows ")[1].split()[0])  # each that fits


def difference(mean: float, **more: Any) -> dict[str, Any]:
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, **more}


@pytest.mark.parametrize(("means", "verdict"), [
    ((0.02, 0.03), "seen"), ((0.02, 0.005), "depends on the panel"), ((-0.002, 0.0), "not seen"), ((-0.2, -0.1), "opposite seen"),
    ((-0.2, 0.3), "depends on the panel"),
])  # fmt: skip
def test_a_mechanism_is_seen_on_both_panels_or_depends(means: tuple[float, float], verdict: str) -> None:
    found = dict(zip(("diverse", "paper_like"), map(difference, means), strict=True))
    assert claims.mechanism("x", "Table 1", found, "n = 100").verdict == verdict


def counted(done: int, **verdicts: str) -> dict[str, Any]:
    rows = {f"{name}, {panel}": difference(0.02, p_holm=0.01, detectable=0.01, verdict=verdicts.get(panel, "seen"))
            for name in evidence.PRIMARY for panel in ("diverse", "paper_like")}  # fmt: skip
    return {"worlds": list(range(done)), "planned": 10, "primary": rows}


def test_contrasts_are_open_until_every_planned_world_is_there() -> None:
    assert {row.verdict for row in claims.of_worlds(counted(9))} == {"open"}
    assert {row.verdict for row in claims.of_worlds(counted(10))} == {"seen"}
    assert {row.verdict for row in claims.of_worlds(counted(10, diverse="opposite seen"))} == {"depends on the panel"}
    assert {row.verdict for row in claims.of_worlds(counted(10, diverse="not seen", paper_like="not seen"))} == {"not seen"}
    assert all("9 of 10 unseen worlds" in row.ran for row in claims.of_worlds(counted(9)))
    assert set(claims.PARTS) == set(evidence.PRIMARY)


def test_rows_of_the_clinic_come_from_the_stored_run() -> None:
    stored = RunFolder(RunFolder.reference, {"cases_sha256": RunFolder._results_in(RunFolder.reference)["cases_sha256"]})
    rows = claims.of_clinic(stored, list(load_profile("tiny").panels), evidence.rivals())
    assert len(rows) >= 8 and all(row.evidence and "n = " in row.ran for row in rows)
    claims.ledger(rows)
    assert {r.command for r in rows} == {"make demo", "python -m figures.rivals"}
    assert all("clinic 0" in r.ran for r in rows)
    without = claims.of_clinic(stored, list(load_profile("tiny").panels), {})
    assert {r.claim for r in without} <= {r.claim for r in rows}


def test_stored_rivals_say_nothing_of_other_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = RunFolder(RunFolder.reference, {"cases_sha256": "of another table"})
    rows = claims.of_clinic(stored, list(load_profile("tiny").panels), evidence.rivals())
    assert all("clinic 0" not in r.ran and r.command == "make demo" for r in rows)
    assert not any("rejection" in r.claim or "three weights" in r.claim for r in rows)


def test_comparisons_of_the_tables_bear_their_cases() -> None:
    assert set(claims.OF_TABLES) == set(evidence.TABLES)
    above, none = {"mean": 0.1, "low": 0.05, "high": 0.15}, {"mean": 0.0, "low": 0.0, "high": 0.0}
    differences = {name: {"diverse": {**above, "n": 454}, "paper_like": {**above, "n": 577}} for name in evidence.TABLES}
    differences["updates by turns"] = {panel: {**none, "n": 3200} for panel in ("diverse", "paper_like")}
    below = {"mean": -0.1, "low": -0.2, "high": -0.05}
    looked = {panel: {"n": 800, "noise": {"flatter": slope}} for panel, slope in (("diverse", below), ("paper_like", above))}
    rows = {row.claim: row for row in claims.of_tables(differences, looked)}
    assert "n = 454 and 577" in rows[claims.OF_TABLES["all wrong, SFT"][0]].ran
    assert {row.verdict for row in rows.values()} == {"seen", "not seen", "depends on the panel"}
    assert [row.verdict for row in rows.values()][-3:] == ["not seen", "seen", "depends on the panel"]
    assert claims.of_tables({}, {}) == []


def test_stored_comparisons_are_of_the_named_cases() -> None:
    """Counted again another way: share of cases that one system has right and the other has not, minus the reverse."""
    frames = {name: evidence.read_wide(evidence.DATA / f"{name}.parquet") for name in ("tables", "rivals")}
    found = evidence.differences()
    for name, (table, system, rival, level) in evidence.TABLES.items():
        frame = frames[table]
        for panel, of_panel in found[name].items():
            part = frame[(frame["panel"] == panel) & ((frame["difficulty"] == level) | (level == "all"))]
            won, lost = (part[system] & ~part[rival]).sum(), (~part[system] & part[rival]).sum()
            assert of_panel["n"] == len(part) and of_panel["mean"] == pytest.approx((won - lost) / len(part), abs=1e-12)


def test_no_height_no_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no panel is unanimous and wrong nothing lies above or below the curve."""
    stored = RunFolder(RunFolder.reference, {"cases_sha256": "of another table"})
    places = {"diverse": {"above_curve": float("nan"), "low": float("nan"), "high": float("nan"), "n": 9}}
    places["paper_like"] = {"above_curve": 0.2, "low": 0.1, "high": 0.3, "n": 9}
    monkeypatch.setattr(claims, "trust_numbers", lambda run, panel: places[panel])
    (row,) = (r for r in claims.of_clinic(stored, list(places), {}) if "bias curve" in r.claim)
    assert row.verdict == "seen" and row.evidence == "paper_like +0.200 [+0.100, +0.300]"
    assert not any("bias curve" in r.claim for r in claims.of_clinic(stored, ["diverse"], {}))

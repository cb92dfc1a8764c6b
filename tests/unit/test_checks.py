"""Bands and check lines: a trained value passes, untrained values and controls do not, and every line is stable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmedlite import checks
from mmedlite.evaluation import wilson
from mmedlite.profiles import ROOT, InputError

SEEDS = {1: 0.975, 2: 0.98, 3: 0.97, 4: 0.985, 5: 0.975}
PROVENANCE = {"source": "triage", "code": "abc", "config": "def", "cases_sha256": "012"}


@pytest.fixture
def bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A band file, and a run folder that MMEDLITE_RUN names."""
    path = tmp_path / "bands.json"
    control = {"untrained": 0.58, "random_reward": 0.6}
    entries = {
        "triage_accuracy": checks.make_band(SEEDS, 600, control, **PROVENANCE),
        "flip": checks.make_band(dict.fromkeys(range(5), 0.1), 400, {"always": 1.0}, "lower", **PROVENANCE),
        "untrained": checks.make_band(dict.fromkeys(range(5), 0.5), 400, {"trained": 0.9}, "within", **PROVENANCE),
    }
    path.write_text(json.dumps(entries), encoding="utf-8")
    monkeypatch.setattr(checks, "BANDS", path)
    monkeypatch.setenv("MMEDLITE_RUN", str(tmp_path / "run"))
    return tmp_path / "run"


def test_band_takes_the_wider_of_seeds_and_wilson() -> None:
    low, high = checks.band_from_seeds([0.5] * 5, 100)
    half = (wilson(50, 100)[1] - wilson(50, 100)[0]) / 2
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half))
    values = [0.3, 0.4, 0.5, 0.6, 0.7]  # sd 0.1581 with n - 1
    assert checks.band_from_seeds(values, 10_000) == pytest.approx((0.5 - 0.4743, 0.5 + 0.4743), abs=1e-4)
    assert checks.band_from_seeds([0.999] * 5, 50)[1] == 1.0 and checks.band_from_seeds([0.001] * 5, 50)[0] == 0.0
    with pytest.raises(InputError, match="at least 5 seeds"):
        checks.band_from_seeds([0.9] * 4, 100)


def test_pass_line_is_stable_and_the_value_goes_to_the_run(bands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checks.expect("triage_accuracy", 0.9712345, n=600)
    checks.expect("triage_accuracy", 0.9812345, n=600)
    first, second = capsys.readouterr().out.splitlines()
    assert first == second == "PASS triage_accuracy within band [0.96, 0.99]"
    record = json.loads((bands / "checks.jsonl").read_text().splitlines()[0])
    assert record["value"] == 0.9712345 and record["status"] == "pass" and record["n"] == 600
    assert record["name"] == "triage_accuracy" and record["band"] == pytest.approx([0.96, 0.99], abs=0.01)


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("triage_accuracy", 0.58, "FAIL"),  # untrained
        ("triage_accuracy", 0.60, "FAIL"),  # control
        ("triage_accuracy", 0.9999, "WATCH"),
        ("triage_accuracy", float("nan"), "FAIL"),
        ("triage_accuracy", None, "FAIL"),
        ("flip", 0.0, "WATCH"),
        ("flip", 1.0, "FAIL"),
        ("untrained", 0.51, "PASS"),
        ("untrained", 0.9, "FAIL"),  # a control that learns is no better
        ("untrained", 0.1, "FAIL"),
    ],
)
def test_status(bands: Path, capsys: pytest.CaptureFixture[str], name: str, value: float, status: str) -> None:
    checks.expect(name, value)
    line = capsys.readouterr().out
    assert line.startswith(f"{status} {name} ") and line.count("\n") == 1
    assert status == "PASS" or "Next:" in line


def test_every_control_and_a_shuffled_band_fail(bands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = json.loads(checks.BANDS.read_text(encoding="utf-8"))
    for name, band in entries.items():
        for value in band["control"].values():
            checks.expect(name, value)
            assert capsys.readouterr().out.startswith("FAIL")


def test_a_band_that_would_pass_its_control_is_refused(bands: Path) -> None:
    for control in ({"untrained": 0.97}, {"untrained": 1.0}):  # inside, and "better"
        with pytest.raises(InputError, match="control 'untrained'"):
            checks.make_band(SEEDS, 600, control, **PROVENANCE)
    with pytest.raises(InputError, match="with 1 cases"):
        checks.expect("triage_accuracy", 0.5, n=1)  # so few cases that chance would pass
    with pytest.raises(InputError, match="higher, lower, within"):
        checks.make_band(SEEDS, 600, {}, "up", **PROVENANCE)


def test_fewer_cases_widen_the_band(bands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checks.expect("triage_accuracy", 0.94)
    checks.expect("triage_accuracy", 0.94, n=60)
    checks.expect("triage_accuracy", 0.94, n=6000)  # more cases do not narrow it: the seeds were judged at 600
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["FAIL", "PASS", "FAIL"]


def test_unknown_name_lists_the_known(bands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="flip, triage_accuracy, untrained"):
        checks.expect("triage_acc", 0.9)
    monkeypatch.setattr(checks, "BANDS", bands / "none.json")
    with pytest.raises(InputError, match="make artifacts"):
        checks.expect("triage_accuracy", 0.9)


def test_check_lines_and_records(bands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checks.check("stages_in_order", True, "pass shuffle_dataset=False")
    checks.check("kl_starts_at_zero", False, "load the reference from memory")
    checks.expect("triage_accuracy", 0.9999)
    assert capsys.readouterr().out.splitlines()[:2] == [
        "PASS stages_in_order holds",
        "FAIL kl_starts_at_zero does not hold. Next: load the reference from memory",
    ]
    rows = [json.loads(line) for line in (bands / "checks.jsonl").read_text().splitlines()]
    assert [(row["name"], row["status"]) for row in rows] == [
        ("stages_in_order", "pass"), ("kl_starts_at_zero", "fail"), ("triage_accuracy", "watch"),
    ]  # fmt: skip


def test_no_run_folder_no_file(bands: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MMEDLITE_RUN")
    checks.expect("triage_accuracy", 0.97)
    assert not bands.exists()
    checks.expect("triage_accuracy", 0.97, run=tmp_path / "other")
    assert (tmp_path / "other" / "checks.jsonl").exists()


def test_stored_bands_keep_the_rules() -> None:
    path = ROOT / "artifacts" / "bands.json"
    if not path.exists():
        pytest.skip("no bands stored yet: run `make artifacts`")
    for name, band in json.loads(path.read_text(encoding="utf-8")).items():
        provenance = {key: band[key] for key in PROVENANCE}
        again = checks.make_band(band["seeds"], band["n"], band["control"], band["direction"], **provenance)
        assert again == band, name
        assert band["control"], f"{name} has no control that must fail"


def test_a_run_is_held_to_the_bands_of_its_own_settings_and_cases(bands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = {"triage": {"trained": 0.98, "n": 600}, "attending": {"diverse": {"trained": 0.8, "n": 600, "unanimous": {"trained": 0.9}}}}
    facts = {"config_sha256": PROVENANCE["config"], "cases_sha256": PROVENANCE["cases_sha256"]}
    checks.expect_all({"triage": results["triage"]}, facts, bands)
    assert capsys.readouterr().out == "PASS triage_accuracy within band [0.96, 0.99]\n"
    with pytest.raises(InputError, match="no band named 'attending_diverse_trained'"):  # a band that ought to be there
        checks.expect_all(results, facts, bands)
    checks.expect_all({"triage": {"trained": 0.6, "n": 600}}, facts, bands)
    assert [(c["name"], c["status"]) for c in checks.tally(bands)] == [("triage_accuracy", "fail")]  # the last word counts
    for changed in ("config_sha256", "cases_sha256"):
        checks.expect_all(results, facts | {changed: "another"}, bands)
    names = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()[-3:]]
    assert names == ["no band triage_accuracy", "no band attending_diverse_trained", "no band unanimous_diverse_trained"]
    counted = {"passed": 0, "failed": 0, "skipped": 3, "assisted": 0}  # other cases or settings: no band speaks of them
    assert checks.count(checks.tally(bands)) == counted


def test_a_check_of_other_cases_is_neither_passed_nor_failed(bands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"config_sha256": PROVENANCE["config"], "cases_sha256": PROVENANCE["cases_sha256"]}
    checks.expect("triage_accuracy", 0.2, n=5, facts=facts | {"cases_sha256": "another"})  # so few that a control would pass
    with pytest.raises(InputError, match="no band named 'unheard_of'"):  # a misspelt name is no other world
        checks.expect("unheard_of", 0.2, facts=facts)
    checks.check("marker_misleads", None, "draw markers")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("no band triage_accuracy:") and second.startswith("no check marker_misleads: it does not apply")
    assert {c["status"] for c in checks.tally(bands)} == {"skipped"}
    assert checks.told(checks.count(checks.tally(bands))) == "0 checks passed, 0 failed, 2 skipped"
    checks.expect("triage_accuracy", 0.2, facts=facts)
    assert capsys.readouterr().out.startswith("FAIL triage_accuracy")


def test_what_a_run_has_not_measured_has_no_band() -> None:
    assert checks.banded({"triage": {"trained": 0.9, "n": 8}}) == {"triage_accuracy": (0.9, 8)}
    assert checks.banded({"seed": 0}) == {}

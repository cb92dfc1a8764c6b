"""The audit of the paper's numbers: the file's shape, each check on invented tables, and the differences that are known."""

from __future__ import annotations

import ast
import copy
import json
from pathlib import Path
from typing import Any

import pytest

from mmedlite import paper_audit as pa
from mmedlite.profiles import InputError

PAPER = pa.load_tables()
FOUND = pa.audit(PAPER)
SETS = [*pa.IN_DOMAIN, *pa.OUT_OF_DOMAIN]
KINDS = {"average", "count", "fraction", "same", "gain", "order", "bound"}


def table(columns: list[str], rows: dict[str, list[Any]], **notes: Any) -> dict[str, Any]:
    return {"title": "invented", "columns": columns, "rows": rows, **notes}


def invented(**notes: Any) -> dict[str, Any]:
    """Table 3 with sets of 40, 50, 60, 2000 and 20 questions, Table 1 with two rows; everything agrees."""
    sizes = {
        "Train": [100, 20, 30, 50, None, None],
        "easy": [60, 10, 20, 30, None, None],
        "medium": [25, 6, 4, 15, None, None],
        "hard": [15, 4, 6, 5, None, None],
        "Test": [2170, 40, 50, 60, 2000, 20],
    }
    main = {"old": [50.0, 40.0, 60.0, 50.0, 40.0, 60.0, 50.0], "new": [60.0, 50.0, 70.0, 60.0, 50.0, 70.0, 60.0]}
    tables = {
        "1": table(["VQA-RAD", "SLAKE", "PathVQA", "ID", "OmniMedVQA", "MMMU-Med", "OOD"], main),
        "3": table(["All", *SETS], sizes, sizes={}),
    }
    return {"tables": tables, "claims": [], "same": [], "readings": {"new": [], "old": []}, **notes}


def put(data: dict[str, Any], ref: str, column: str, value: float | None) -> dict[str, Any]:
    """A copy with one cell changed; ref as in the module."""
    changed = copy.deepcopy(data)
    key, _, row = ref.partition(", ")
    cells = changed["tables"][key]
    cells["rows"][row][cells["columns"].index(column)] = value
    return changed


def one(findings: Any, what: str = "", where: str = "") -> pa.Finding:
    found = [f for f in findings if what in f.what and where in f.where]
    assert len(found) == 1, found
    return found[0]


# The file
@pytest.mark.parametrize("key", PAPER["tables"])
def test_rows_are_as_long_as_their_columns(key: str) -> None:
    part = PAPER["tables"][key]
    assert part["title"] and part["rows"] and len(set(part["columns"])) == len(part["columns"])
    for row, values in part["rows"].items():
        assert len(values) == len(part["columns"]), row
        assert any(value is not None for value in values), row
        assert all(value is None or isinstance(value, int | float) for value in values), row


def test_the_tables_are_there() -> None:
    assert set(PAPER["tables"]) >= {"1", "2", "3", "5", "6", "7", "8", "9", "10", "11", "12", "14", "15", "16", "17", "18"}
    assert len(PAPER["tables"]["1"]["rows"]) == 19
    assert all(set(claim) >= {"text", "where", "value"} for claim in PAPER["claims"])
    assert all(set(setting) == {"name", "value", "where"} for setting in PAPER["settings"])


def test_notes_name_rows_that_exist() -> None:
    refs = [ref for group in PAPER["same"] for ref in group["rows"]] + PAPER["readings"]["new"] + PAPER["readings"]["old"]
    refs += [ref for claim in PAPER["claims"] for pair in claim.get("pairs", []) for ref in pair]
    refs += [f"{key}, {row}" for key, part in PAPER["tables"].items() for row in part.get("steps", [])]
    assert all(pa.cells(PAPER, ref) for ref in refs)
    assert all(len(group["rows"]) > 1 for group in PAPER["same"])


def test_accuracies_are_per_cent() -> None:
    for key, part in PAPER["tables"].items():
        if "accuracy in %" in part["title"]:
            assert all(0 <= value <= 100 for values in part["rows"].values() for value in values if value is not None), key


@pytest.mark.parametrize("ref", ["1, nobody", "99, GPT-4o", "GPT-4o"])
def test_a_row_that_is_not_there(ref: str) -> None:
    with pytest.raises(InputError, match="table"):
        pa.cells(PAPER, ref)


def test_a_row_that_is_too_short() -> None:
    data = invented()
    data["tables"]["1"]["rows"]["old"].pop()
    with pytest.raises(InputError, match="6 cells under 7 columns"):
        pa.audit({**data, "tables": {**data["tables"]}})


def test_no_number_of_the_paper_stands_in_the_module() -> None:
    source = Path(pa.__file__).read_text(encoding="utf-8")
    numbers = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant) and type(node.value) in (int, float)}
    assert numbers <= {0, 1, 2, 3, 100, 200, 10.0, 6, 1e-6}  # indices, per cent, two times 100 per cent, rounding
    data = json.dumps(PAPER)
    for word in ("62.4", "12356", "18.4", "20.7", "23.6", "71.5"):
        assert word not in source and (word in data or word == "12356")


# Each check, agree and not agree
def test_averages() -> None:
    data = invented()
    assert {f.agrees for f in pa.averages(data)} == {True} and len(list(pa.averages(data))) == 4
    off = one(pa.averages(put(data, "1, old", "OOD", 52.0)), "OOD", "old")
    assert not off.agrees and off.derived == 50.0 and off.computation == "(40.0 + 60.0) / 2 = 50.00"


@pytest.mark.parametrize(("printed", "fine"), [(50.0, True), (50.1, True), (49.9, True), (50.2, False), (49.8, False)])
def test_averages_round(printed: float, fine: bool) -> None:
    """Cells of 39.95 and 60.05 print as 40.0 and 60.0 too, so one unit is rounding and two are not."""
    assert one(pa.averages(put(invented(), "1, old", "OOD", printed)), "OOD", "old").agrees is fine


def test_averages_say_so_if_the_mean_of_all_fits() -> None:
    data = put(put(invented(), "1, old", "MMMU-Med", 90.0), "1, old", "OOD", 56.0)
    assert one(pa.averages(data), "OOD", "old").computation == "(40.0 + 90.0) / 2 = 65.00; the mean of all 5 is 56.00"


def test_averages_borrow_cells_from_the_first_print() -> None:
    data = invented(same=[{"system": "old", "rows": ["1, old", "6, alone"]}])
    data["tables"]["6"] = table([*SETS, "average"], {"alone": [*[None] * 5, 50.0], "unknown": [*[None] * 5, 50.0]})
    assert one(pa.averages(data), where="Table 6").agrees
    assert not one(pa.averages(put(data, "6, alone", "average", 51.0)), where="Table 6").agrees


def test_counts() -> None:
    assert {f.agrees for f in pa.counts(invented())} == {True}
    off = [f for f in pa.counts(put(invented(), "3, hard", "SLAKE", 7)) if not f.agrees]
    assert [(f.what, f.printed, f.derived) for f in off] == [
        ("hard: All is the sum of the sets", 15, 16),
        ("SLAKE: the buckets make up Train", 30, 31),
    ]
    without = one(pa.counts(put(invented(), "3, Test", "All", 2150)), "Test")
    assert not without.agrees and without.computation.endswith("; without MMMU-Med 2,150")


@pytest.mark.parametrize(
    ("counts", "value", "fine"), [("test sets", 5, True), ("test sets", 6, False), ("SLAKE", 50, True), ("SLAKE", 51, False)]
)
def test_counts_in_the_text(counts: str, value: int, fine: bool) -> None:
    data = invented(claims=[{"text": "so many", "where": None, "value": value, "counts": counts}])
    assert one(pa.counts(data), "so many").agrees is fine


@pytest.mark.parametrize(
    ("column", "value", "fine"),
    [("VQA-RAD", 52.5, True), ("VQA-RAD", 52.4, False), ("PathVQA", 58.3, True), ("PathVQA", 58.4, False), ("MMMU-Med", 65.0, True)],
)
def test_shares(column: str, value: float, fine: bool) -> None:
    assert one(pa.shares(put(invented(), "1, old", column, value)), column, "old").agrees is fine


def test_shares_show_both_neighbours() -> None:
    found = one(pa.shares(put(invented(), "1, old", "VQA-RAD", 52.4)), "VQA-RAD", "old")
    assert found.computation == "20/40 = 50.00, 21/40 = 52.50" and found.derived == 52.5 and found.what == "VQA-RAD: k of 40"


def test_shares_leave_out_what_the_digits_cannot_tell() -> None:
    found = list(pa.shares(put(invented(), "3, Test", "OmniMedVQA", 2000)))
    assert not [f for f in found if "OmniMedVQA" in f.what]
    assert not [f for f in found if "ID" in f.what or "Table 3" in f.where]


def test_shares_of_a_tables_own_sizes_and_fields() -> None:
    data = invented()
    data["tables"]["9"] = table(["SLAKE"], {"a": [12.5], "b": [12.0]}, sizes={"SLAKE": 8})
    data["tables"]["18"] = table(["x", "y", "average"], {"a": [50.0, 45.0, 47.5]}, average_is="MMMU-Med")
    data["tables"]["17"] = table(["x", "y", "z", "average"], {"a": [50.0, 45.0, 40.0, 45.0]}, average_is="MMMU-Med")  # 20 in 3 fields
    assert not [f for f in pa.shares(data) if "Table 17" in f.where]
    assert [f.agrees for f in pa.shares(data) if "Table 9" in f.where] == [True, False]
    assert [(f.what, f.agrees) for f in pa.shares(data) if "Table 18" in f.where] == [("x: k of 10", True), ("y: k of 10", False)]


def test_shares_of_any_size_up_to_all() -> None:
    data = invented()
    data["tables"]["7"] = table(["SLAKE"], {"a": [99.0], "b": [99.5]}, sizes={}, at_most="text")
    data["tables"]["text"] = table(["questions"], {"SLAKE": [100]}, sizes={})
    assert [f.agrees for f in pa.shares(data) if "Table 7" in f.where] == [True, False]  # 99/100, but 199/200 is past the end


def test_shares_count_a_system_once() -> None:
    data = invented(same=[{"system": "old", "rows": ["1, old", "12, base"]}])
    data["tables"]["12"] = table(["VQA-RAD"], {"base": [50.0], "other": [50.0]})
    assert [f.where for f in pa.shares(data) if "Table 12" in f.where] == ["Table 12, other"]


def test_same_rows() -> None:
    data = invented(same=[{"system": "old", "rows": ["1, old", "12, base"]}])
    data["tables"]["12"] = table(["VQA-RAD", "SLAKE"], {"base": [50.0, 40.1]})
    assert [(f.what, f.agrees, f.printed, f.derived) for f in pa.same_rows(data)] == [
        ("VQA-RAD, old", True, 50.0, 50.0),
        ("SLAKE, old", False, 40.1, 40.0),
    ]


def test_same_rows_with_more_digits_and_with_fields() -> None:
    data = invented(same=[{"system": "old", "rows": ["1, old", "12, base", "18, old"]}])
    data["tables"]["12"] = table(["VQA-RAD"], {"base": [50.04]})
    data["tables"]["18"] = table(["x", "average"], {"old": [50.0, 40.0]}, average_is="MMMU-Med")
    found = list(pa.same_rows(data))
    assert [f.agrees for f in found] == [True, False] and found[1].what == "MMMU-Med, old"
    assert found[1].computation.endswith("; the first also has SLAKE 40.0; the first also has OmniMedVQA 40.0")


def gain(value: float, **notes: Any) -> dict[str, Any]:
    return invented(claims=[{"text": "gain", "where": "here", "value": value, "pairs": [["1, new", "1, old"]], **notes}])


@pytest.mark.parametrize(("value", "groups", "fine"), [(10, ["ID"], True), (20.0, ["ID"], True), (20.5, ["ID"], False), (15.0, ["ID"], False)])
def test_gains(value: float, groups: list[str], fine: bool) -> None:
    found = one(pa.gains(gain(value, groups=groups)))
    assert found.agrees is fine and found.where == "here" and "of 4 readings fit" in found.computation


def test_gains_try_every_group_if_the_claim_names_none() -> None:
    assert "of 10 readings" in one(pa.gains(gain(10.0))).computation
    assert one(pa.gains(gain(20.2))).agrees  # 60.05 / 49.95 rounds so
    assert not one(pa.gains(gain(20.3))).agrees
    assert one(pa.gains(gain(19.8))).agrees and not one(pa.gains(gain(19.7))).agrees  # and 59.95 / 50.05


def test_gains_of_other_rows_are_told_but_do_not_count() -> None:
    data = gain(50.0, other_readings=True)
    data["tables"]["1"]["rows"]["base"] = [40.0] * 7
    data["readings"] = {"new": ["1, new"], "old": ["1, base"]}
    found = one(pa.gains(data))
    assert not found.agrees and "of 10 readings of these and other rows 5 fit; 60.00 / 40.00 - 1 = 50.00 %" in found.computation


def test_steps_and_highest() -> None:
    data = invented(claims=[{"text": "top", "where": None, "value": 70, "row": "1, new", "highest": "PathVQA"}])
    data["tables"]["1"]["steps"] = ["old", "new"]
    assert {f.agrees for f in pa.orders(data)} == {True} and len(list(pa.orders(data))) == 6
    data = put(data, "1, old", "PathVQA", 70.5)
    assert [f.what for f in pa.orders(data) if not f.agrees] == ["PathVQA: 'new' is not below 'old'", "top"]


@pytest.mark.parametrize(("after", "fine"), [(60.0, True), (60.2, True), (60.4, False)])
def test_routes(after: float, fine: bool) -> None:
    data = invented()
    data["tables"]["7"] = table(["SLAKE"], {"Qwen2.5-VL-7B": [91.0], "trained": [99.0]})
    data["tables"]["10"] = table(["SLAKE"], {"zero-shot triage": [50.0], "trained triage": [after]})
    assert one(pa.routes(data)).agrees is fine


# The paper
def test_every_finding_is_whole() -> None:
    assert {f.kind for f in FOUND} == KINDS and len(set(FOUND)) == len(FOUND)
    assert all(f.what and f.where and f.computation for f in FOUND)
    said = " ".join(f"{f.what} {f.computation}" for f in FOUND).lower()
    assert not any(word in said for word in ("mistake", "error", "false", "incorrect", "contradict"))


def test_what_agrees_and_what_does_not() -> None:
    def tally(kind: str) -> tuple[int, int]:
        found = [f.agrees for f in FOUND if f.kind == kind]
        return sum(found), len(found) - sum(found)

    assert tally("average") == (82, 5) and tally("count") == (4, 8)


@pytest.mark.parametrize(
    ("what", "where", "printed", "derived"),
    [
        ("All: the buckets", "Table 3", 12176, 12356),
        ("VQA-RAD: the buckets", "Table 3", 940, 939),
        ("Test: All", "Table 3", 15153, 15303),
        ("OOD", "Table 5, GPT-4o -> Qwen2.5-VL-7B, SFT w/o reasoning", 62.4, 59.35),
        ("OOD", "Table 5, GPT-4o -> Qwen2.5-VL-7B, SFT w/ reasoning", 64.5, 60.7),
        ("OOD: mean", "Table 1, MedAgents", 52.6, 52.75),
        ("VQA-RAD: k of 251", "Table 1, MMedAgent-RL-7B", 71.5, 100 * 179 / 251),
        ("MMMU-Med, MedAgents", "Table 18", 52.6, 49.7),
        ("SLAKE: '+ Hard'", "Table 2", 76.2, 76.9),
        ("Highest ultrasound", "App. G.12", 75.4, 83.7),
        ("VQA-RAD: k of at most 3,515", "Table 7, trained", 99.98, 100 * 3514 / 3515),
    ],
)
def test_known_differences_are_found(what: str, where: str, printed: float, derived: float) -> None:
    found = [f for f in FOUND if what in f.what and (f.where == where or (where in f.where and f.kind == "same"))]
    assert len(found) == 1 and not found[0].agrees
    assert found[0].printed == printed and found[0].derived == pytest.approx(derived)


@pytest.mark.parametrize(
    ("claim", "fine", "shown"),
    [
        ("18.4 %", False, "0 of 20 readings fit"),
        ("20.7 %", False, "0 of 20 readings fit"),
        ("23.6 %", False, "72.60 / 59.35 - 1 = 22.33 %"),
        ("23.6 %", False, "72.60 / 58.70 - 1 = 23.68 %"),
        ("C-MARL adds 18.6 %", True, "72.60 - 54.05 = 18.55 points"),
        ("Overall improvement of 20 %", True, "73.04 / 60.88 - 1 = 19.97 %"),
    ],
)
def test_claimed_gains(claim: str, fine: bool, shown: str) -> None:
    found = one(pa.gains(PAPER), claim)
    assert found.agrees is fine and shown in found.computation


def test_main_row_agrees_wherever_it_is_printed() -> None:
    found = [f for f in FOUND if f.kind == "same" and "the method" in f.what and "untrained" not in f.what]
    assert len(found) > 30 and all(f.agrees for f in found)


AGREEING = [
    (ref, name)
    for ref, _, own in pa._rows(PAPER)
    for name in pa.AVERAGES
    if name in own and any(f.where == f"Table {ref}" and f.what.startswith(f"{name}: ") and f.agrees for f in FOUND if f.kind == "average")
]


@pytest.mark.parametrize("by", [1.0, -1.0])
@pytest.mark.parametrize(("ref", "name"), AGREEING, ids=lambda part: str(part))
def test_a_changed_average_is_found(ref: str, name: str, by: float) -> None:
    changed = put(PAPER, ref, name, round(pa.cells(PAPER, ref)[name] + by, 2))
    found = [f for f in pa.averages(changed) if f.where == f"Table {ref}" and f.what.startswith(f"{name}: ")]
    assert [f.agrees for f in found] == [False]


def test_every_average_that_agrees_was_changed() -> None:
    assert len(AGREEING) == len([f for f in FOUND if f.kind == "average" and f.agrees])

"""The paper's arithmetic: its printed numbers against each other. No model, no data, no GPU.

``figures/data/paper_tables.json`` holds the numbers as the paper (arXiv 2506.00555 v3) prints them; a row's name is "table, row". Two
numbers agree where rounding can explain the difference: half a unit of the last printed digit and, in averages and gains, half a unit of
the cells too, as these are rounded as well. "Does not agree" says that printed numbers differ, not which one is wrong, nor why.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from mmedlite.profiles import ROOT, InputError

TABLES = ROOT / "figures" / "data" / "paper_tables.json"
IN_DOMAIN, OUT_OF_DOMAIN = ("VQA-RAD", "SLAKE", "PathVQA"), ("OmniMedVQA", "MMMU-Med")
BUCKETS, AVERAGES = ("easy", "medium", "hard"), ("ID", "OOD", "average")
GROUPS = {"ID": IN_DOMAIN, "OOD": OUT_OF_DOMAIN, "all sets": IN_DOMAIN + OUT_OF_DOMAIN, "ID as printed": ("ID",), "OOD as printed": ("OOD",)}


class Finding(NamedTuple):
    """One printed number and what others give for it; kind: average, count, fraction, same, gain, order or bound."""

    kind: str
    what: str
    where: str
    computation: str
    printed: float
    derived: float
    agrees: bool


def load_tables() -> dict[str, Any]:
    """The printed numbers; OSError or ValueError where the file is missing or no JSON."""
    return json.loads(TABLES.read_text(encoding="utf-8"))


def audit(data: dict[str, Any]) -> list[Finding]:
    """Every check below on the printed numbers (``load_tables``); InputError where a note names no row."""
    return [finding for check in (averages, counts, shares, same_rows, gains, orders, routes) for finding in check(data)]


def cells(data: dict[str, Any], ref: str) -> dict[str, float]:
    """The known cells of the row "table, row", by column; InputError where there is no such row or it is not as long as the columns."""
    key, _, row = ref.partition(", ")
    table = data["tables"].get(key, {"columns": [], "rows": {}})
    columns, values = table["columns"], table["rows"].get(row, [])
    if not values or len(values) != len(columns):
        raise InputError(f"{len(values)} cells under {len(columns)} columns", f"table {ref}", "name it 'table, row'; null where not known")
    return {column: value for column, value in zip(columns, values, strict=True) if value is not None}


def _rows(data: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, float]]]:
    for key, table in data["tables"].items():
        for row in table["rows"]:
            yield f"{key}, {row}", table, cells(data, f"{key}, {row}")


def _first(data: dict[str, Any], ref: str) -> str:  # where the system of this row is printed first
    return next((group["rows"][0] for group in data["same"] if ref in group["rows"]), ref)


def _half(*values: float) -> float:  # half a unit of the last printed digit, of the coarsest value
    return max(10.0 ** -len(str(value).partition(".")[2]) for value in values) / 2


def _close(printed: float, derived: float, slack: float) -> bool:
    return abs(printed - derived) <= slack + 1e-6  # a millionth: for binary fractions


def averages(data: dict[str, Any]) -> Iterator[Finding]:
    """Printed averages against the mean of the row's cells; cells that a table leaves out come from where the system is printed first."""
    for ref, table, own in _rows(data):
        known, fields = cells(data, _first(data, ref)) | own, tuple(c for c in table["columns"] if c not in AVERAGES)
        for name, printed in ((name, own[name]) for name in AVERAGES if name in own):
            columns = {"ID": IN_DOMAIN, "OOD": OUT_OF_DOMAIN}.get(name, fields)
            if all(column in known for column in columns):
                values, every = [known[c] for c in columns], fmean(known.get(c, math.nan) for c in fields)
                fine = _close(printed, fmean(values), _half(printed) + _half(*values))
                text = f"({' + '.join(map(str, values))}) / {len(values)} = {fmean(values):.2f}"
                if not fine and _close(printed, every, 2 * _half(printed)):
                    text += f"; the mean of all {len(fields)} is {every:.2f}"
                yield Finding("average", f"{name}: mean of {', '.join(columns)}", f"Table {ref}", text, printed, fmean(values), fine)


def counts(data: dict[str, Any]) -> Iterator[Finding]:
    """Table 3: the sets add up to All and the buckets to Train; counts in the text against Table 3."""
    sizes = {row: cells(data, f"3, {row}") for row in ("Train", *BUCKETS, "Test")}
    sets = {row: {column: n for column, n in size.items() if column != "All"} for row, size in sizes.items()}
    sums = [(f"{row}: All is the sum of the sets", sets[row], size["All"]) for row, size in sizes.items()]
    buckets = [(f"{c}: the buckets make up Train", {b: sizes[b][c] for b in BUCKETS}, n) for c, n in sizes["Train"].items()]
    for what, parts, printed in sums + buckets:
        total = sum(parts.values())
        text = f"{' + '.join(f'{n:,}' for n in parts.values())} = {total:,}"
        text += "".join(f"; without {name} {printed:,}" for name, n in parts.items() if n == total - printed)
        yield Finding("count", what, "Table 3", text, printed, total, total == printed)
    for claim in (claim for claim in data["claims"] if "counts" in claim):
        number = len(sets["Test"]) if claim["counts"] == "test sets" else sets["Test"][claim["counts"]]
        text = f"Table 3 has {number:,}" + (f": {', '.join(sets['Test'])}" if claim["counts"] == "test sets" else "")
        yield Finding("count", claim["text"], claim["where"] or "text", text, claim["value"], number, claim["value"] == number)


def shares(data: dict[str, Any]) -> Iterator[Finding]:
    """Is an accuracy k of n questions, for some whole k? Checked where its digits can tell (a step of 1 / n exceeds their unit).

    n: Table 3; the table's ``sizes``; for fields, n shared evenly; with ``at_most``, any n up to that. A system's number counts once.
    "Does not agree": not one pass over n questions, pooled. A mean of passes, another n, or fields of unequal size can give such numbers.
    """
    test, seen = cells(data, "3, Test"), set()
    for ref, table, own in _rows(data):
        fields = [c for c in table["columns"] if c != "average"] if "average_is" in table else []
        sizes = table.get("sizes", test) | {c: test[table["average_is"]] / len(fields) for c in fields}
        for column, printed in own.items():
            most = cells(data, f"{table['at_most']}, {column}")["questions"] if "at_most" in table else 0
            size, once = most or sizes.get(column, 0), (_first(data, ref), column, printed)
            if not size or size % 1 or once in seen or (100 / size <= 2 * _half(printed) and not most):
                continue
            seen.add(once)
            off = {n: abs(100 * round(printed * n / 100) / n - printed) for n in range(1 if most else int(size), int(size) + 1)}
            n = min(off, key=lambda n: off[n])
            k, low, fine = round(printed * n / 100), math.floor(printed * n / 100), off[n] <= _half(printed) + 1e-6
            text = ", ".join(f"{j:,}/{n:,} = {100 * j / n:.2f}" for j in ((k,) if fine else (low, low + 1)))
            what = f"{column}: k of {'at most ' * bool(most)}{int(size):,}"
            yield Finding("fraction", what, f"Table {ref}", text, printed, 100 * k / n, fine)


def same_rows(data: dict[str, Any]) -> Iterator[Finding]:
    """One system in several tables (the list ``same``): each number against where it is printed first."""
    for group in data["same"]:
        known: dict[str, tuple[str, float]] = {}
        for ref in group["rows"]:
            average = data["tables"][ref.partition(", ")[0]].get("average_is", "average")
            for name, printed in ((average if c == "average" else c, value) for c, value in cells(data, ref).items()):
                first, value = known.setdefault(name, (ref, printed))
                if first != ref:
                    fine = _close(printed, value, _half(printed, value))
                    text = f"{value} in Table {first}; {printed} in Table {ref}"
                    text += "".join(f"; the first also has {c} {v}" for c, v in cells(data, first).items() if v == printed and not fine)
                    yield Finding("same", f"{name}, {group['system']}", f"Table {first}; Table {ref}", text, printed, value, fine)


def readings(data: dict[str, Any], pairs: Sequence[Sequence[str]], groups: Sequence[str] = ("",)) -> list[tuple[float, float, float, str]]:
    """Gains of [new, old] rows x groups (whose names start so) x points or per cent: value, its range as cells are rounded, arithmetic."""
    found = []
    for (new, old), group in ((pair, group) for pair in pairs for group in GROUPS if group.startswith(tuple(groups))):
        a, b = cells(data, new), cells(data, old)
        shared = [c for c in GROUPS[group] if c in a and c in b]
        if shared and (group == "all sets" or len(shared) == len(GROUPS[group])):
            x, y, h = fmean(a[c] for c in shared), fmean(b[c] for c in shared), _half(*(row[c] for row in (a, b) for c in shared))
            about = f"{group}, Table {new} over Table {old}"
            found.append((x - y, x - y - 2 * h, x - y + 2 * h, f"{x:.2f} - {y:.2f} = {x - y:.2f} points ({about})"))
            value, low, high = (100 * ratio - 100 for ratio in (x / y, (x - h) / (y + h), (x + h) / (y - h)))
            text = f"{x:.2f} / {y:.2f} - 1 = {value:.2f} %, with rounding {low:.2f} to {high:.2f} ({about})"
            found.append((value, low, high, text))
    return found


def gains(data: dict[str, Any]) -> Iterator[Finding]:
    """Claimed gains against every reading of the rows that the claim names; if none fits, against other rows (``readings``) too."""
    every = [(new, old) for new in data["readings"]["new"] for old in data["readings"]["old"]]
    for claim in (claim for claim in data["claims"] if "pairs" in claim):
        printed, slack = claim["value"], _half(claim["value"]) + 1e-6
        named = sorted(readings(data, claim["pairs"], claim.get("groups", ("",))), key=lambda r: abs(r[0] - printed))
        other = sorted(readings(data, every if claim.get("other_readings") else ()), key=lambda r: abs(r[0] - printed))
        fit, fit_other = ([r for r in some if r[1] - slack <= printed <= r[2] + slack] for some in (named, other))
        text = f"{len(fit)} of {len(named)} readings fit, nearest: {(fit or named)[0][3]}"
        if other and not fit:
            text += f"; of {len(other)} readings of these and other rows {len(fit_other)} fit" + "".join(f"; {r[3]}" for r in fit_other)
        yield Finding("gain", claim["text"], claim["where"] or "text", text, printed, (fit or named)[0][0], bool(fit))


def orders(data: dict[str, Any]) -> Iterator[Finding]:
    """Rows that add a part each (``steps``): is the next one not below? Claims that a row has the highest number of its column."""
    for key, table in data["tables"].items():
        for before, after in zip(table.get("steps", []), table.get("steps", [])[1:], strict=False):
            old, new = cells(data, f"{key}, {before}"), cells(data, f"{key}, {after}")
            for c in (c for c in new if c not in AVERAGES):
                what, text = f"{c}: '{after}' is not below '{before}'", f"{new[c]} - {old[c]} = {new[c] - old[c]:+.1f}"
                yield Finding("order", what, f"Table {key}", text, new[c], old[c], new[c] >= old[c])
    for claim in (claim for claim in data["claims"] if "highest" in claim):
        key, mine = claim["row"].partition(", ")[0], cells(data, claim["row"])[claim["highest"]]
        column = {ref: own.get(claim["highest"], -math.inf) for ref, _, own in _rows(data) if ref.startswith(f"{key}, ")}
        text = f"{mine}; above it: {', '.join(f'{v} (Table {ref})' for ref, v in column.items() if v > mine) or 'none'}"
        yield Finding("order", claim["text"], claim["where"] or "text", text, mine, max(column.values()), max(column.values()) <= mine)


def routes(data: dict[str, Any]) -> Iterator[Finding]:
    """Tables 7 and 10: triage doctors differ at most where one of them is wrong. Do more answers change than routes?

    Decides only if both tables are over the same questions, and attending and stored answers stay the same.
    """
    base, trained, before, after = (cells(data, r) for r in ("7, Qwen2.5-VL-7B", "7, trained", "10, zero-shot triage", "10, trained triage"))
    for c in base:
        routed, answers = 200 - base[c] - trained[c], round(after[c] - before[c], 6)
        fine = answers <= routed + 2 * (_half(base[c]) + _half(before[c])) + 1e-6
        text = f"{after[c]} - {before[c]} = {answers:.1f} points; routes (100 - {base[c]}) + (100 - {trained[c]}) = {routed:.2f}"
        yield Finding("bound", f"{c}: no more answers change than routes", "Tables 7 and 10", text, answers, routed, fine)

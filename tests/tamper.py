"""``make verify``: a copy of what is stored with one character changed must not pass; exit status 1 if one does."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from mmedlite.cli import main

ROOT = Path(__file__).parents[1]
CHANGED = ("artifacts/reference/results.json", "artifacts/bands.json", "figures/data/evidence.json", "figures/data/paper_tables.json")


def change_one_digit(file: Path) -> None:
    """The last digit of the file becomes another one."""
    text = file.read_text(encoding="utf-8")
    at = max(text.rfind(digit) for digit in "0123456789")
    file.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :], encoding="utf-8")


def passes_when_changed(name: str) -> bool:
    """Does ``verify`` still say that a copy is fine?"""
    folder = ROOT / ("artifacts" if name.startswith("artifacts") else "figures/data")
    with tempfile.TemporaryDirectory() as place:
        copy = Path(shutil.copytree(folder, Path(place) / folder.name))
        change_one_digit(copy / Path(name).relative_to(folder.relative_to(ROOT)))
        return main(["verify", str(copy)]) == 0


if __name__ == "__main__":
    passed = [name for name in CHANGED if passes_when_changed(name)]
    print(f"{len(CHANGED) - len(passed)} of {len(CHANGED)} changed copies were found; not found: {passed}")
    sys.exit(bool(passed))

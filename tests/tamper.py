"""``make verify``: a copy of what is stored with one digit or bit changed must not pass, though its manifest is written anew; 1 if one does."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from mmedlite.cli import main
from mmedlite.verify import write_manifest

ROOT = Path(__file__).parents[1]
# file, and whether a new manifest is written: what cannot be counted again is found by its hash
CHANGED = {
    "artifacts/reference/results.json": True, "artifacts/bands.json": True, "artifacts/reference/routes/train.json": False,
    "artifacts/reference/rollouts/diverse/rollouts.jsonl": False, "artifacts/policy/model.safetensors": True,
    "figures/data/rivals.json": True, "figures/data/accuracies.json": True, "figures/data/paper_tables.json": False,
}  # fmt: skip


def change_one_digit(file: Path) -> None:
    """The last digit of the file that is no end of a fraction becomes another one; of weights, the last bit."""
    if file.suffix == ".safetensors":
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        return
    text = file.read_text(encoding="utf-8")
    at = max(text.rfind(f"0.{digit}") for digit in "0123456789") + 2 if "0." in text else max(text.rfind(d) for d in "0123456789")
    file.write_text(text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :], encoding="utf-8")


def passes_when_changed(name: str, sealed: bool) -> bool:
    """Does ``verify`` still say that a copy is fine?"""
    folder = ROOT / ("artifacts" if name.startswith("artifacts") else "figures/data")
    with tempfile.TemporaryDirectory() as place:
        copy = Path(shutil.copytree(folder, Path(place) / folder.name))
        change_one_digit(copy / Path(name).relative_to(folder.relative_to(ROOT)))
        if sealed:
            write_manifest(copy)
        return main(["verify", str(copy)]) == 0


if __name__ == "__main__":
    passed = [name for name, sealed in CHANGED.items() if passes_when_changed(name, sealed)]
    print(f"{len(CHANGED) - len(passed)} of {len(CHANGED)} changed copies were found; not found: {passed}")
    sys.exit(bool(passed))

"""``make verify``: a copy of what is stored passes under a new manifest, and does not with one digit or bit changed; 1 if that is not so.

Asked is ``verify`` itself, which counts again; the seal that the command holds a manifest to would find every new one.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from mmedlite.verify import verify, write_manifest

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


def passes(folder: str, name: str = "", sealed: bool = True) -> bool:
    """Does ``verify`` say that a copy is fine, in which the file of that name is changed?"""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(shutil.copytree(ROOT / folder, Path(place) / Path(folder).name))
        if name:
            change_one_digit(copy / name)
        if sealed:
            write_manifest(copy)
        return not verify(copy)


if __name__ == "__main__":
    split = {name: ("artifacts", "figures/data")[name.startswith("figures/data")] for name in CHANGED}
    passed = [name for name, sealed in CHANGED.items() if passes(split[name], name.removeprefix(f"{split[name]}/"), sealed)]
    refused = [folder for folder in ("artifacts", "figures/data") if not passes(folder)]
    print(f"{len(CHANGED) - len(passed)} of {len(CHANGED)} changed copies were found; not found: {passed}; whole copies refused: {refused}")
    sys.exit(bool(passed or refused))

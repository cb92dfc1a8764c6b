"""The phantom clinic: cases about pictures the kit draws itself, one look for each department of the paper.

A finding lies in one quadrant of the look and fades with its contrast; a marker (the department's stated blind spot) is drawn on
some cases. The same function draws minimal pairs: same seed and noise, finding in, out, or elsewhere.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_prep.drawing import FINDINGS, LOOKS, PLACES, Phantom, draw
from mmedlite.cases import Case, TableWriter
from mmedlite.profiles import DEPARTMENTS, ROOT

DEPARTMENT = dict(zip(LOOKS, DEPARTMENTS, strict=True))
VIEWS = 3  # further pictures a case, one for each specialist of the panel
# Looks whose findings are hard to see: so many times the contrast in the specialists' views.
CLEARER = {"histology": 3, "chest X-ray": 2, "thyroid ultrasound": 4, "dermoscopy": 2}


@dataclass(frozen=True)
class Dials:
    """What makes the clinic hard. Frozen once the headroom gate is passed; ``contrast`` is (low, high) of 256."""

    contrast: tuple[int, int] = (2, 60)
    view_contrast: tuple[int, int] = (4, 84)
    noise: int = 14
    view_noise: int = 14
    marked: int = 22  # per cent of cases that carry the marker


PHRASINGS = {
    "which": ("Which finding does the image show?", "What is seen?", "Name the finding."),
    "where": ("Where is the finding?", "In which quadrant does the finding lie?", "Locate the finding."),
    "present": ("Is there a {}?", "Does the image show a {}?", "Can a {} be seen?"),
    "side": ("Is the finding in the {} half?", "Does the finding lie in the {} half?", "Is it in the {} half?"),
}
SHIFTED_PHRASINGS = {
    "which": ("What does this image show?",),
    "where": ("In which quadrant is it?",),
    "present": ("Does it show a {}?",),
    "side": ("Does it lie in the {} half?",),
}


def sample(seed: int, dials: Dials, shift: int = 0) -> dict[str, Any]:
    """Draw the facts of one case from its seed: look, finding, place, question, options, answer and the phantom of each view."""
    rng = np.random.Generator(np.random.PCG64([seed, 9]))
    look = LOOKS[int(rng.integers(7))]
    kind = ("which", "which", "where", "present", "side")[int(rng.integers(5))]
    finding, place = FINDINGS[int(rng.integers(4))], PLACES[int(rng.integers(4))]
    asked, yes = FINDINGS[int(rng.integers(3))], bool(rng.integers(2))
    if kind in ("where", "side"):
        finding = FINDINGS[int(rng.integers(3))]
    slot = ""
    if kind == "present":
        others = [f for f in FINDINGS if f != asked]
        finding, slot = asked if yes else others[int(rng.integers(3))], asked
    if kind == "side":
        slot = ("upper", "lower", "left", "right")[int(rng.integers(4))]
        yes = slot in place
    phrasings = (SHIFTED_PHRASINGS if shift else PHRASINGS)[kind]
    question = phrasings[int(rng.integers(len(phrasings)))].format(slot)
    choices: tuple[str, ...] = {"which": FINDINGS, "where": PLACES}.get(kind, ("yes", "no"))
    options = tuple(str(o) for o in rng.permutation(choices))
    text = {"which": finding, "where": place}.get(kind, "yes" if yes else "no")
    marked = bool(rng.integers(100) < dials.marked)

    def contrast(bounds: tuple[int, int]) -> int:  # each view has its own, so that a doctor may see what the attending cannot
        return int(rng.integers(bounds[0], bounds[1] + 1))

    first = Phantom(seed, look, finding, place, contrast(dials.contrast), marked, dials.noise, shift=shift)
    gain = CLEARER.get(look, 1)
    views = [replace(first, contrast=gain * contrast(dials.view_contrast), noise=dials.view_noise, view=v + 1) for v in range(VIEWS)]
    return {
        "look": look, "kind": kind, "finding": finding, "place": place, "slot": slot, "marked": marked, "question": question,
        "options": options, "text": text, "phantoms": [first, *views],
    }  # fmt: skip


# Cases a split, and the first seed of each; a world is a block of ten million seeds.
SPLIT_SIZES = {"train": 3600, "validation": 1000, "test": 3200, "shifted": 800}
_FIRST_SEED = {"train": 0, "validation": 1_000_000, "test": 2_000_000, "shifted": 3_000_000}
DIALS = Dials()


def recipe_sha256() -> str:
    """Hash of the sources that draw the clinic; a table whose card.json bears another one is drawn again."""
    folder = Path(__file__).parent
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in ("drawing.py", "phantoms.py"))).hexdigest()


def build(out: Path, world: int = 0, sizes: dict[str, int] | None = None, dials: Dials = DIALS) -> None:
    """Draw the clinic of one world into the case table ``out``; image 0 is the attending's, images 1-3 the specialists' views."""
    with TableWriter(out) as writer:
        writer.notes = {
            "world": world,
            "dials": asdict(dials),
            "recipe_sha256": recipe_sha256(),
            "drawn": "by the kit, from integer seeds; simulated, not patients",
        }
        for split, count in (sizes or SPLIT_SIZES).items():
            for i in tqdm(range(count), desc=f"drawing {split}", mininterval=2):
                seed = world * 10_000_000 + _FIRST_SEED[split] + i
                facts = sample(seed, dials, shift=int(split == "shifted"))
                stored = [writer.add_image(draw(p)) for p in facts["phantoms"]]
                first = facts["phantoms"][0]
                writer.add(Case(
                    case_id=f"phantom-{world}-{split}-{i:05d}", source="phantoms", split=split,
                    images=tuple(path for path, _ in stored), image_sha256s=tuple(sha for _, sha in stored),
                    question=facts["question"], options=facts["options"], answer=facts["options"].index(facts["text"]),
                    modality=facts["look"], specialty=DEPARTMENT[facts["look"]],
                    question_type="yes_no" if facts["kind"] in ("present", "side") else "choice", licence="MIT",
                    meta={"seed": seed, "kind": facts["kind"], "finding": facts["finding"], "place": facts["place"],
                          "marked": facts["marked"], "contrast": first.contrast},
                ))  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this source."""
    parser.add_argument("--out", default=str(ROOT / "data" / "phantoms"), help="folder of the case table")
    parser.add_argument("--world", type=int, default=0, help="world seed: another world is another clinic")


def main(args: argparse.Namespace) -> int:
    """Build it; returns the exit status."""
    out = Path(args.out)
    build(out, args.world)
    print(f"Wrote {sum(SPLIT_SIZES.values()):,} cases to {out}")
    return 0

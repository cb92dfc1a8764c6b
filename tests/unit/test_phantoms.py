"""The phantom clinic: same seed, same pixels; fast; no picture in two splits; minimal pairs differ where the finding lies."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from data_prep.drawing import FINDINGS, LOOKS, PLACES, Phantom, _finding, draw
from data_prep.phantoms import _FIRST_SEED, CLEARER, DEPARTMENT, DIALS, SPLIT_SIZES, VIEWS, build, sample
from data_prep.tiny_base import BASE_SEED
from mmedlite.cases import image_sha256, read_table
from mmedlite.profiles import DEPARTMENTS

# One plain picture and one marked, shifted specialist's view of each look.
PIXELS = {
    ("histology", False): "5fee953f8c399dfafbaaee4a2c86dcec8d47dd7e38dffd1c6469f3a972a57710",
    ("histology", True): "9f5978ab580a1dd34c3dcf8dc83701423d28223b47c19261203cf6458c054c27",
    ("chest X-ray", False): "a8b3c94dc006ea6eda2323d030024981b66864a41c7e2217227516c77ee86808",
    ("chest X-ray", True): "7655e481ef204090dd932a3b3f9d98b7d5d02f0062c0e5b0934b52d0266b29c7",
    ("endoscopy", False): "34abdd1da89f914a9c81f48ea08364bc58d216d02ac539385895e8d4ec59eebd",
    ("endoscopy", True): "ad8fc2d8dc6ff254667d4bec599c007f9660f03630d61842730a2df3d80ef20e",
    ("PET", False): "25ff38e2664b8c4487ce7b0f8b9aa70ddc8b977919f4025ea57d1626be631bf3",
    ("PET", True): "2da151769862dcb0911d178bac3a664bcdef1b12ad7a238d01abb663917376d9",
    ("thyroid ultrasound", False): "c5f84a3b93ece8ba5e6c030e13b56bd7b7acf61651bd5a688913bb19499fe676",
    ("thyroid ultrasound", True): "add4b99b6c4f382960c80e4fc3bcfdc43343c3b1bd47387f7fe4cea12dfbed86",
    ("fundus", False): "aad4024b60070aa54dcc474b9881007b08b2401ca948cf22561a186336d39c9f",
    ("fundus", True): "2608c238132f7c00deb9a1702e2a1cdd28c1df831e06082c87efa6fc5135382b",
    ("dermoscopy", False): "b36901ecc204e6fe8d5bc6f954652cdee9eda0a084230b9847d64c3d91acec8d",
    ("dermoscopy", True): "1f1c03e85c750c9c7f3b101cba2ff899b19ca4ae6b8e8cbfa67bb95b3fdaa3f2",
}


def phantom(look: str, marked: bool) -> Phantom:
    if marked:
        return Phantom(8, look, "cyst", "lower right", 60, True, 14, 2, 1)
    return Phantom(7, look, "mass", "upper left", 120, False)


def drawn() -> dict[str, str]:
    """Hash of every picture of PIXELS, by its key as text."""
    return {f"{look}/{marked}": image_sha256(draw(phantom(look, marked))) for look, marked in PIXELS}


def expected() -> dict[str, str]:
    return {f"{look}/{marked}": sha for (look, marked), sha in PIXELS.items()}


def test_same_seed_same_pixels() -> None:
    assert len(PIXELS) == 14 and len(set(PIXELS.values())) == 14
    assert drawn() == expected()


def test_same_pixels_without_simd(root: Path) -> None:
    """Integer arithmetic gives the same result on a CPU without vector units."""
    code = (
        "import json\nfrom numpy._core._multiarray_umath import __cpu_dispatch__ as d, __cpu_features__ as f\n"
        "assert not [n for n in d if f[n]], 'SIMD is still on'\n"
        "from tests.unit.test_phantoms import drawn\nprint(json.dumps(drawn()))"
    )
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    on = [name for name in __cpu_dispatch__ if __cpu_features__[name]]
    environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": " ".join(on), "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == expected()


def test_at_least_300_pictures_a_second() -> None:
    """On one core; processor time, so that a busy machine does not count."""
    pictures = [p for seed in range(100) for p in sample(seed, DIALS)["phantoms"]]
    start = time.process_time()
    for p in pictures:
        draw(p)
    assert len(pictures) / (time.process_time() - start) >= 300


def test_no_picture_in_two_splits() -> None:
    seen: dict[str, str] = {}
    for split, first in _FIRST_SEED.items():
        for seed in range(first, first + 300):
            for p in sample(seed, DIALS, shift=int(split == "shifted"))["phantoms"]:
                sha = hashlib.sha256(draw(p).tobytes()).hexdigest()
                assert sha not in seen, f"seed {seed} of {split} repeats a picture of {seen[sha]}"
                seen[sha] = split
    assert len(seen) == 4 * 300 * (1 + VIEWS)


def test_seeds_of_splits_worlds_and_base_models_do_not_meet() -> None:
    ends = sorted((first, first + SPLIT_SIZES[split]) for split, first in _FIRST_SEED.items())
    assert all(end <= start for (_, end), (start, _) in pairwise(ends))
    assert max(end for _, end in ends) <= 10_000_000  # the next world begins here
    assert BASE_SEED >= 50 * 10_000_000  # 50 worlds lie below the seeds of the tiny models


def changed(a: Phantom, b: Phantom) -> np.ndarray:
    """Where two pictures differ: (64, 64) bool."""
    found: np.ndarray = (np.asarray(draw(a)) != np.asarray(draw(b))).any(2)
    return found


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("finding", FINDINGS[:3])
def test_minimal_pairs(look: str, finding: str) -> None:
    """Finding in, out or elsewhere, same seed and noise: only pixels of the finding's own quadrant change."""
    for seed in range(20):
        inside = Phantom(seed, look, finding, PLACES[seed % 4], 200, marked=bool(seed % 2))
        out, elsewhere = replace(inside, finding="normal"), replace(inside, place=PLACES[(seed + 1) % 4])
        where = {p: _finding(np.random.Generator(np.random.PCG64([seed, 1])), finding, p) > 0 for p in (inside.place, elsewhere.place)}
        difference = changed(inside, out)
        assert difference.sum() > 5 and not (difference & ~where[inside.place]).any()
        assert not (changed(inside, elsewhere) & ~(where[inside.place] | where[elsewhere.place])).any()
        y, x = np.argwhere(difference).mean(0)
        assert ("upper" if y < 32 else "lower", "left" if x < 32 else "right") == tuple(inside.place.split())
        assert not changed(out, replace(out, place=elsewhere.place)).any()


@pytest.mark.parametrize("look", LOOKS)
def test_marker_is_seen_and_leaves_the_findings_alone(look: str) -> None:
    for seed in range(20):
        plain = Phantom(seed, look, "normal", PLACES[0], 0, marked=False)
        difference = changed(plain, replace(plain, marked=True))
        assert difference.sum() >= 10
        rows = np.flatnonzero(difference.any(1))
        assert rows.max() < 12 or rows.min() > 51  # at the upper or lower border


def test_views_share_the_patient_but_not_the_noise() -> None:
    for seed in range(50):
        facts = sample(seed, DIALS)
        first, *views = facts["phantoms"]
        assert [v.view for v in views] == [1, 2, 3]
        assert {(p.seed, p.look, p.finding, p.place, p.marked) for p in (first, *views)} == {
            (seed, facts["look"], facts["finding"], facts["place"], facts["marked"])
        }
        assert len({draw(replace(p, contrast=0, noise=14)).tobytes() for p in (first, *views)}) == 4


def test_contrast_fades_the_finding() -> None:
    """The dial works: at contrast 0 nothing is left, and more contrast changes more."""
    p = Phantom(3, "chest X-ray", "mass", "upper left", 0, marked=False, noise=0)
    normal = np.asarray(draw(replace(p, finding="normal")), int)
    change = [int(abs(np.asarray(draw(replace(p, contrast=c)), int) - normal).sum()) for c in (0, 20, 80, 240)]
    assert change[0] == 0 and change == sorted(change) and change[1] > 0


def test_noise_dial_is_its_standard_deviation() -> None:
    p = Phantom(3, "endoscopy", "normal", "upper left", 0, marked=False, noise=0)
    quiet = np.asarray(draw(p), int)
    for noise in (6, 12):
        grain = (np.asarray(draw(replace(p, noise=noise)), int) - quiet)[16:48, 16:48]
        assert noise * 0.85 < grain.std() < noise * 1.15


def answer_of(facts: dict[str, object]) -> str:
    """What a reader who sees the finding and its place must answer."""
    finding, place, slot = str(facts["finding"]), str(facts["place"]), str(facts["slot"])
    yes = {"present": finding == slot, "side": slot in place}.get(str(facts["kind"]))
    return {"which": finding, "where": place}.get(str(facts["kind"]), "yes" if yes else "no")


def test_answers_follow_the_picture() -> None:
    kinds: Counter[str] = Counter()
    for seed in range(2000):
        facts = sample(seed, DIALS)
        kinds[facts["kind"]] += 1
        assert facts["text"] == answer_of(facts) and facts["options"].count(facts["text"]) == 1
        assert not (facts["kind"] in ("where", "side") and facts["finding"] == "normal")
    assert set(kinds) == {"which", "where", "present", "side"} and min(kinds.values()) > 300


def test_marked_share_and_contrast_keep_to_the_dials() -> None:
    facts = [sample(seed, DIALS) for seed in range(4000)]
    assert abs(np.mean([f["marked"] for f in facts]) * 100 - DIALS.marked) < 2
    for name, views in (("contrast", [0]), ("view_contrast", [1, 2, 3])):
        found = [f["phantoms"][v].contrast // (CLEARER.get(f["look"], 1) if v else 1) for f in facts for v in views]
        low, high = getattr(DIALS, name)
        assert low <= min(found) and max(found) <= high


def test_shifted_cases_look_and_read_otherwise() -> None:
    plain, shifted = sample(5, DIALS), sample(5, DIALS, shift=1)
    assert np.asarray(draw(shifted["phantoms"][0])).mean() < np.asarray(draw(plain["phantoms"][0])).mean()
    asked = [{sample(s, DIALS, shift)["question"] for s in range(1500)} for shift in (0, 1)]
    assert asked[0].isdisjoint(asked[1])


def test_every_department_has_a_look() -> None:
    assert tuple(DEPARTMENT[look] for look in LOOKS) == DEPARTMENTS


def test_built_table(tmp_path: Path) -> None:
    sizes = {"train": 3, "validation": 2, "test": 2, "shifted": 2}
    build(tmp_path / "a", world=1, sizes=sizes)
    build(tmp_path / "b", world=1, sizes=sizes)
    build(tmp_path / "c", world=2, sizes=sizes)
    a, b, c = (read_table(tmp_path / name) for name in "abc")
    assert Counter(case.split for case in a) == sizes
    assert a.sha256 == b.sha256 != c.sha256
    assert {s for case in a for s in case.image_sha256s}.isdisjoint(s for case in c for s in case.image_sha256s)
    for case in a:
        assert len(case.images) == 1 + VIEWS and case.specialty == DEPARTMENT[case.modality]
        facts = sample(case.meta["seed"], DIALS, int(case.split == "shifted"))
        assert case.answer_text == facts["text"] and case.meta["marked"] == facts["marked"]
        assert image_sha256(a.open_image(case, 2)) == image_sha256(draw(facts["phantoms"][2]))

"""The real-small models: a school apart from the rest, words that the tokenizer learns, doctors of departments with and without pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from data_prep import small_base
from data_prep.__main__ import main
from mmedlite.cases import Case, CaseTable, TableWriter, read_table
from mmedlite.models import completion_log_probs, load_policy, load_processor
from mmedlite.profiles import DEPARTMENTS, ROOT
from mmedlite.provenance import weights_sha256
from mmedlite.run import Run

WORD = "cardiomegaly"


def write_table(out: Path, n: int = 40) -> Path:
    """Pictures of two departments, two questions a picture."""
    rng = np.random.default_rng(0)
    with TableWriter(out) as table:
        for i in range(n):
            path, sha = table.add_image(Image.fromarray(rng.integers(0, 255, (150, 200, 3), dtype=np.uint8)))
            split = "test" if i % 4 == 0 else "validation" if i % 8 == 1 else "train"
            modality, department = ("Dermoscopy", "Dermatologist") if i % 2 else ("CT", "Radiologist")
            for q, answer in ((f"is there {WORD}?", i % 2), ("is it large?", 0)):
                table.add(Case(f"case-{i}-{q}", "made", split, (path,), (sha,), q, ("yes", "no"), answer, modality, department,
                               "yes_no", "none", {}))  # fmt: skip
    return out


def in_small(patch: pytest.MonkeyPatch) -> None:
    for name, value in {"EXAMPLES": 60, "BATCH": 4, "POLICY_STEPS": 2, "BASE_STEPS": 2, "ADAPTER_STEPS": 2}.items():
        patch.setattr(small_base, name, value)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        in_small(patch)
        assert main(["small_base", "--cases", str(write_table(out / "table")), "--out", str(out / "made")]) == 0
    return out


def pictures(cases: Sequence[Case]) -> set[str]:
    return {c.image_sha256s[0] for c in cases}


def test_school_and_table_share_no_picture(built: Path) -> None:
    table, school, rest = (read_table(built / name) for name in ("table", "made/school", "made/cases"))
    assert len(school.cases) + len(rest.cases) == len(table.cases)
    assert not pictures(school.cases) & pictures(rest.cases)
    assert {c.split for c in school} == {"train"}
    assert 0.4 < len(pictures(school.cases)) / len(pictures(table.split("train"))) < 0.6
    for split in ("validation", "test"):  # no question of theirs is taught
        assert [c.case_id for c in rest.split(split)] == [c.case_id for c in table.split(split)]
    assert max(rest.open_image(rest.cases[0]).size) == small_base.SIDE


def test_common_words_become_tokens(built: Path) -> None:
    old, new = load_processor(ROOT / "artifacts" / "policy").tokenizer, load_processor(built / "made" / "policy").tokenizer
    assert len(old.encode(WORD)) > 2 and len(new.encode(WORD)) == 1
    for text in (f"is there {WORD}?", f"pseudo{WORD}s", "<think>CT</think><answer>no</answer>"):
        assert new.decode(new.encode(text)) == text
    assert len(new.encode(f"pseudo{WORD}s")) == len(old.encode(f"pseudo{WORD}s"))  # inside a word it is not taken for itself
    assert load_policy(built / "made" / "policy").get_input_embeddings().weight.shape[0] == len(new)


def test_new_words_begin_at_the_mean_of_their_pieces(built: Path, tmp_path: Path) -> None:
    source = ROOT / "artifacts" / "policy"
    model, processor = small_base.start_from(source, read_table(built / "made" / "school").cases, tmp_path)
    before, old = load_policy(source), load_processor(source)
    row = model.get_input_embeddings().weight[processor.tokenizer.convert_tokens_to_ids(WORD)]
    assert torch.allclose(row, before.get_input_embeddings().weight[old.tokenizer.encode(f" {WORD}")].mean(0))
    picture, prompt, said = Image.new("RGB", (64, 64)), "Options: yes, no", ["<answer>yes</answer>"]
    (was, _), (now, _) = (completion_log_probs(m, p, [picture], [prompt], [""], said) for m, p in ((before, old), (model, processor)))
    # what has no new word is read as before, but for the probability that the new words take
    assert ((now - was).detach() < 1e-5).all() and torch.allclose(was.exp(), now.exp(), atol=0.02)


def test_every_department_has_three_doctors(built: Path) -> None:
    folder = built / "made" / "specialists"
    for department in DEPARTMENTS:
        weights = [load_file(folder / "adapters" / f"{department}-{i}" / "adapter_model.safetensors") for i in range(3)]
        learned = [any(w.abs().sum() > 0 for name, w in part.items() if "lora_B" in name) for part in weights]
        assert learned == [department in ("Radiologist", "Dermatologist")] * 3
    assert f'"{weights_sha256(folder)}"' in (folder / "revision.json").read_text(encoding="utf-8")
    assert not [f for f in folder.rglob("*.json") if str(ROOT) in f.read_text(encoding="utf-8")]


def test_doctors_of_a_department_learned_from_other_pictures(built: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    taught: list[set[str]] = []

    def teach(model: object, processor: object, table: CaseTable, examples: Sequence[tuple[Case, tuple[str, str]]], *_: object) -> None:
        taught.append(pictures([c for c, _ in examples]))

    monkeypatch.setattr(small_base, "teach", teach)
    school = read_table(built / "made" / "school")
    small_base.make_specialists(school, tmp_path)
    _, *doctors = taught  # the first is the base
    for three in (doctors[:3], doctors[3:]):
        assert len({frozenset(part) for part in three}) == 3 and set.union(*three) == set.union(*three[:2])


def test_the_profile_runs_on_them(built: Path, tmp_path: Path) -> None:
    text = (ROOT / "mmedlite" / "profiles" / "real-small.toml").read_text(encoding="utf-8")
    here = text.replace("data/real_small/", f"{built}/made/").replace("prompts_per_step = 12", "prompts_per_step = 4")
    (file := tmp_path / "here.toml").write_text(here, encoding="utf-8")
    run = Run(tmp_path / "run", str(file), built / "made" / "cases")
    cases = run.cases("test")[:4]
    assert run.panel_for(cases, ["Surgeon", "Radiologist", "Dermatologist", "Radiologist"], "diverse").shape == (4, 3)


def test_the_same_seed_gives_the_same_models(built: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    in_small(monkeypatch)
    school = read_table(built / "made" / "school")
    small_base.make_policy(school, tmp_path / "policy")
    small_base.make_specialists(school, tmp_path / "specialists")
    for name in ("policy", "specialists"):
        assert weights_sha256(tmp_path / name) == weights_sha256(built / "made" / name)

"""Do the installed trl, transformers, peft, accelerate and datasets still have what the kit uses of them?

tests/slow/test_drift.py asks the same of the oldest and the newest versions that pyproject.toml allows.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from tests.drift import OVERRIDDEN, PASSED_ON, READ, TYPES, Reader, drift, sources, unread
from tests.shelf import Shelf

INSTALLED = Path(str(importlib.metadata.distribution("trl").locate_file("")))
OURS = dict(sources())


def test_installed_libraries_have_what_we_use() -> None:
    problems, uses = drift(Shelf(INSTALLED))
    assert problems == []
    assert len(uses) > 150
    # and no table speaks of what we no longer do
    assert {use.partition(" ")[2] for use in uses if use.startswith("override ")} == set(OVERRIDDEN)
    assert (TYPES.keys() | PASSED_ON.keys()) - uses == set()
    text = "\n".join(OURS.values())
    assert [(name, word) for name, wanted in READ.items() for word in wanted.split() if word not in text] == []


GRPO, MODELS, PROGRESS, TRAINER = "mmedlite/grpo.py", "mmedlite/models.py", "mmedlite/progress.py", "trl/trainer/grpo_trainer.py"
GENERATION = "transformers/generation/configuration_utils.py"
KEEP = "logits_to_keep,\n            compute_entropy=True"
MUTANTS = [  # file of a library, what is changed to what, our source, what is told
    ("trl/trainer/grpo_config.py", "    beta: float", "    kl: float", GRPO, "GRPOConfig takes .* unexpected keyword argument 'beta'"),
    (TRAINER, "def _calculate_rewards(", "def _rewards(", GRPO, "_calculate_rewards is gone, and we override it"),
    (TRAINER, "self, inputs, prompts, completions,", "self, inputs, texts,", GRPO, r"_calculate_rewards takes \(inputs, texts,"),
    (TRAINER, KEEP, f"logits_to_keep={KEEP}", GRPO, "override does not take: missing a required argument: 'keep'"),
    (TRAINER, "max_completion_length", "longest", GRPO, "GRPOTrainer.max_completion_length is gone"),
    ("trl/trainer/utils.py", "def add_fused_lm_head(", "def add_fast_head(", MODELS, "trl.trainer.utils.add_fused_lm_head is not there"),
    ("transformers/trainer_callback.py", "is_world_process_zero", "is_first", PROGRESS, "TrainerState.is_world_process_zero is gone"),
    (GENERATION, "suppress_tokens", "banned", MODELS, "GenerationConfig has nobody who reads our suppress_tokens"),
    ("peft/peft_model.py", "adapter_name: str", "name: str", MODELS, "PeftModel.from_pretrained has nobody who reads our adapter_name"),
    ("accelerate/accelerator.py", "def reduce(", "def all_reduce(", "mmedlite/dose.py", "accelerate.Accelerator.reduce is gone"),
    ("accelerate/state.py", "cpu: bool", "on_cpu: bool", "mmedlite/devices.py", "PartialState has nobody who reads our cpu"),
    ("datasets/arrow_dataset.py", "def with_transform(", "def transformed(", GRPO, "Dataset.with_transform is gone"),
]


def mutated(file: str, old: str, new: str, folder: Path) -> Shelf:
    """The installed libraries with one file changed."""
    text = (INSTALLED / file).read_text(encoding="utf-8")
    assert old in text
    (folder / file).parent.mkdir(parents=True)
    (folder / file).write_text(text.replace(old, new), encoding="utf-8")
    return Shelf(folder, INSTALLED)


@pytest.mark.parametrize(("file", "old", "new", "place", "told"), MUTANTS, ids=[told.partition(" ")[0] for *_, told in MUTANTS])
def test_a_changed_library_is_found(tmp_path: Path, file: str, old: str, new: str, place: str, told: str) -> None:
    problems = Reader(mutated(file, old, new, tmp_path), place, OURS[place]).problems
    with pytest.raises(AssertionError, match=told):
        raise AssertionError("\n".join(problems))


def test_a_lost_word_is_found(tmp_path: Path) -> None:
    file = "transformers/models/qwen2_5_vl/modeling_qwen2_5_vl.py"
    shelf = mutated(file, "rope_deltas", "deltas", tmp_path)
    (line,) = unread(shelf)
    assert line == f"transformers {shelf.version('transformers')}: transformers.models.qwen2_5_vl.Qwen2_5_VLModel has lost rope_deltas"


def test_a_line_says_library_version_name_change_and_place() -> None:
    shelf = Shelf(INSTALLED)
    (line,) = Reader(shelf, "ours.py", "\nfrom trl import GRPOTrainer, PPOTrainer2\n").problems
    assert line == f"trl {shelf.version('trl')}: trl.PPOTrainer2 is not there (ours.py:2)"

"""Profiles: what the shipped ones say, and that every setting counts for their hash. Bad ones: tests/faults."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path

import pytest

from mmedlite.profiles import DEPARTMENTS, ROOT, InputError, load_profile
from tests.small import ENDPOINT, profile

PROFILES = sorted(path.stem for path in (ROOT / "mmedlite" / "profiles").glob("*.toml"))


def test_budget_and_pace_are_no_part_of_the_hash(tmp_path: Path) -> None:
    """Raised in the midst of a paid run, they must not make it another run; a sampling value must."""
    changes = [("[lora]", ENDPOINT), ("diverse = ", 'diverse = ["a", "a", "a"] #'), ("paper_like = ", 'paper_like = ["a", "a", "a"] #')]
    one = load_profile(profile(tmp_path, *changes))
    for name, value in {"max_dollars": 50.0, "concurrency": 2, "timeout_s": 1.0}.items():
        assert replace(one, endpoint=replace(one.endpoint, **{name: value})).sha256() == one.sha256()
    hotter = replace(one.endpoint.models["a"], sampling={"temperature": 0.5, "max_tokens": 300})
    assert replace(one, endpoint=replace(one.endpoint, models={"a": hotter})).sha256() != one.sha256()


@pytest.mark.parametrize("name", PROFILES)
def test_shipped_profiles_can_be_read(name: str) -> None:
    loaded = load_profile(name)
    assert loaded.name == name and [*loaded.panels] == ["diverse", "paper_like"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize("name", PROFILES)
def test_settings_that_the_paper_prints(name: str) -> None:
    loaded = load_profile(name)
    assert loaded.grpo.generations == 8 and loaded.grpo.temperature == 1.0
    assert [s.buckets for s in loaded.attending.paper_schedule] == [("easy",), ("medium",), ("hard",)]
    assert [s.gamma for s in loaded.attending.paper_schedule] == [(1e-4,), (5e-3,), (3e-2,)]
    assert [s.beta for s in loaded.attending.paper_schedule] == [(1e-3,), (4e-3,), (1e-2,)]
    assert {s.steps for s in loaded.attending.paper_schedule} == {0}  # the same number of epochs: one


@pytest.mark.parametrize("name", PROFILES)
def test_the_recipe_visits_every_bucket(name: str) -> None:
    loaded = load_profile(name).attending
    for recipe in (loaded.recipe, loaded.no_panel):
        assert {b for stage in recipe for b in stage.buckets} == {"easy", "medium", "hard"}
        assert len({stage.name for stage in recipe}) == len(recipe)  # adapters are stored by stage
    assert sum(s.steps for s in loaded.no_panel) == sum(s.steps for s in loaded.recipe)  # the same budget


def test_a_profile_from_a_file(tmp_path: Path) -> None:
    loaded = load_profile(profile(tmp_path))
    assert loaded.name == "small" and loaded.attending.recipe[1].gamma == (1e-4, 5e-3, 3e-2)
    assert loaded == load_profile(str(profile(tmp_path))) and loaded.sha256() == load_profile(profile(tmp_path)).sha256()


@pytest.mark.parametrize(
    ("old", "new"),
    [("seed = 0", "seed = 1"), ("r = 4", "r = 8"), ("max_new_tokens = 6", "max_new_tokens = 7"), ('name = "last"', 'name = "end"')],
)
def test_every_setting_counts_for_the_hash(tmp_path: Path, old: str, new: str) -> None:
    plain = load_profile(profile(tmp_path)).sha256()
    assert load_profile(profile(tmp_path, (old, new))).sha256() != plain


def test_whole_numbers_serve_as_floats(tmp_path: Path) -> None:
    loaded = load_profile(profile(tmp_path, ("learning_rate = ", "learning_rate = 1 #"), ("beta = [4e-3]", "beta = [1]")))
    assert loaded.grpo.learning_rate == 1.0 and isinstance(loaded.grpo.learning_rate, float)
    assert loaded.attending.recipe[0].beta == (1.0,) and isinstance(loaded.attending.recipe[0].beta[0], float)


def test_input_error_reads_as_a_sentence() -> None:
    assert str(InputError("what", "file, row 2", "mend")) == "what (file, row 2). Fix: mend"
    assert str(InputError("what")) == "what"
    assert issubclass(InputError, ValueError)


def test_departments_are_the_papers() -> None:
    assert len(DEPARTMENTS) == 7 and len(set(DEPARTMENTS)) == 7

"""Bad profiles: one clear error that names file, field and mend, before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmedlite.profiles import InputError, Profile, load_profile
from mmedlite.run import Run
from tests.small import ENDPOINT, profile

SIMULATED = "[simulated]\naccuracy = 0.7\ncorrelation = 0.3\ncorrupted = 0.0\n\n[lora]"

# name -> (line of a good profile, what stands there instead, the field that must be named, words of the error)
R = "attending.recipe"
FAULTS: dict[str, tuple[str, str, str, str]] = {
    "unknown key": ("seed = 0", "seed = 0\nsede = 1", "sede", "unknown profile key"),
    "unknown key in a table": ("r = 4", "r = 4\nrank = 3", "lora.rank", "use one of: r, alpha"),
    "unknown key in a stage": ('name = "last"', 'name = "last"\nepochs = 3', f"{R}[1].epochs", "unknown profile key"),
    "missing key": ("eval_batch = ", "# ", "eval_batch", "is missing"),
    "missing key in a stage": ('buckets = ["medium"]', "# ", f"{R}[0].buckets", "is missing"),
    "missing table": ("[lora]", "[lora_]", "lora_", "unknown profile key"),
    "text for a number": ("seed = 0", 'seed = "0"', "seed", "not int"),
    "true for a number": ("seed = 0", "seed = true", "seed", "not int"),
    "fraction for a whole number": ("r = 4", "r = 1.5", "lora.r", "not int"),
    "number for text": ("policy = ", "policy = 3 #", "policy", "not str"),
    "number for true": ("gradient_checkpointing = false", "gradient_checkpointing = 0", "grpo.gradient_checkpointing", "not bool"),
    "number for a table": ("[lora]", "[grpo.lora]", "lora", "is missing"),
    "text for a list": ('buckets = ["medium"]', 'buckets = "medium"', f"{R}[0].buckets", "not a list"),
    "empty list": ('buckets = ["medium"]', "buckets = []", f"{R}[0].buckets", "at least one"),
    "text in a list of numbers": ("gamma = [5e-3]", 'gamma = ["5e-3"]', f"{R}[0].gamma[0]", "not float"),
    "unknown bucket": ('buckets = ["medium"]', 'buckets = ["simple"]', f"{R}[0]", "unknown bucket"),
    "one gamma too many": ("gamma = [5e-3]", "gamma = [5e-3, 1e-3]", f"{R}[0]", "1 buckets, 2 gammas, 1 betas"),
    "one beta too few": ("beta = [1e-3, 4e-3, 1e-2]", "beta = [1e-3]", f"{R}[1]", "3 buckets, 3 gammas, 1 betas"),
    "negative steps": ("steps = 1", "steps = -1", f"{R}[0]", "write 0 for one epoch"),
    "no triage steps": ("steps = 2", "steps = 0", "triage.steps", "not above 0"),
    "one generation": ("generations = 2", "generations = 1", "grpo.generations", "below 2"),
    "no prompts": ("prompts_per_step = 2", "prompts_per_step = 0", "grpo.prompts_per_step", "not above 0"),
    "no tokens": ("max_new_tokens = 6", "max_new_tokens = 0", "grpo.max_new_tokens", "not above 0"),
    "temperature 0": ("temperature = 1.0", "temperature = 0", "grpo.temperature", "not above 0"),
    "negative learning rate": ("learning_rate = 1e-3", "learning_rate = -1e-3", "grpo.learning_rate", "not above 0"),
    "no evaluation batch": ("eval_batch = 64", "eval_batch = 0", "eval_batch", "not above 0"),
    "parts that do not fit": ("gradient_accumulation = 1", "gradient_accumulation = 3", "gradient_accumulation", "2 prompts x 2"),
    "unknown doctor": ("diverse = ", 'diverse = ["0", "1", "expert"] #', "panels.diverse", "name three of 0, 1, 2"),
    "panel of two": ("diverse = ", 'diverse = ["0", "1"] #', "panels.diverse", "['0', '1']"),
    "panel name that is a path": ("diverse = ", '"../diverse" = ["0", "1", "2"] #', "panels.../diverse", "not of letters"),
    "doctor who is not behind the endpoint": ("[lora]", ENDPOINT, "panels.diverse", "name three of a"),
    "no limit of tokens": ("[lora]", ENDPOINT.replace("max_tokens = 300", "top_p = 1"), "endpoint.models.a", "give max_tokens"),
    "n of its own": ("[lora]", ENDPOINT.replace("max_tokens = 300", "max_tokens = 300, n = 3"), "endpoint.models.a", "not both"),
    "key in the sampling": ("[lora]", ENDPOINT.replace("temperature = 1.0", 'api_key = "k"'), "endpoint.models.a", "no address, key"),
    "both limits": ("[lora]", ENDPOINT.replace("temperature = 1.0", "max_completion_tokens = 9"), "endpoint.models.a", "not both"),
    "header in the sampling": ("[lora]", ENDPOINT.replace("temperature = 1.0", "Default_Headers = 9"), "endpoint.models.a", "no address, key"),
    "negative picture": ("[lora]", ENDPOINT.replace("1600", "-5"), "endpoint.models.a.image_tokens", "not from 0"),
    "nan dollars": ("[lora]", ENDPOINT.replace("5.0", "nan"), "endpoint.max_dollars", "not from 0"),
    "no concurrency": ("[lora]", ENDPOINT.replace("concurrency = 8", "concurrency = 0"), "endpoint.concurrency", "not from 1"),
    "no price": ("[lora]", ENDPOINT.replace("input_dollars", "# "), "endpoint.models.a.input_dollars", "is missing"),
    "dial beyond 1": ("[lora]", SIMULATED.replace("0.7", "1.7"), "simulated.accuracy", "not from 0 to 1"),
    "unknown dtype": ("dtype = ", 'dtype = "int3" #', "dtype", "'int3'"),
    "negative seed": ("seed = 0", "seed = -1", "seed", "no number from 0"),
    "negative number of cases": ("eval_cases = 0", "eval_cases = -5", "eval_cases", "no number from 0"),
    "stage name that is a path": ('name = "first"', 'name = "../first"', f"{R}[0]", "not of letters"),
    "stage name used twice": ('name = "first"', 'name = "last"', f"{R}[0]", "used twice"),
    "no TOML": ("seed = 0", "seed = ", "", "not valid TOML"),
}
Loader = Callable[[Path], Profile]


def told(load: Loader, file: Path, field: str, words: str) -> bool:
    """Whether the error names file, field, fault and mend."""
    try:
        load(file)
    except InputError as error:
        return all(part in str(error) for part in (str(file), field, words, "Fix: "))
    return False


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_told(name: str, tmp_path: Path) -> None:
    old, new, field, words = FAULTS[name]
    assert told(load_profile, profile(tmp_path, (old, new)), field, words)


def test_a_table_that_is_a_number(tmp_path: Path) -> None:
    file = profile(tmp_path, ("seed = 0", "lora = 3\nseed = 0"), ("[lora]", "[other]"))
    text = file.read_text().replace("[other]\nr = 4\nalpha = 8\n", "")
    file.write_text(text)
    assert told(load_profile, file, "lora", "not a table")


@pytest.mark.parametrize("name", FAULTS)
def test_a_loader_that_says_nothing_is_caught(name: str, tmp_path: Path) -> None:
    """The check itself: a loader that falls back on the tiny profile fails every row of the table."""
    old, new, field, words = FAULTS[name]
    assert not told(lambda file: load_profile("tiny"), profile(tmp_path, (old, new)), field, words)


def test_unknown_name() -> None:
    with pytest.raises(InputError, match=r"no profile 'huge'.*use one of: .*tiny"):
        load_profile("huge")


def test_a_run_with_a_bad_profile_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown profile key"):
        Run(tmp_path / "run", str(profile(tmp_path, ("seed = 0", "seed = 0\nsede = 1"))))
    assert not (tmp_path / "run").exists()

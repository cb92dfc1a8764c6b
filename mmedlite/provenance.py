"""What stands beside every number: the hash of the sources that made it, and JSON that can be read anywhere."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mmedlite.profiles import ROOT

# The sources that decide what is drawn, asked and learned; a change to any of them makes stored numbers stale.
DECIDING = (
    *("prompts", "rewards", "features", "prompt_once", "checkpoints", "models", "asks", "simulated", "chat", "endpoint"),
    *("local_specialists", "specialists"),
    *("curriculum", "grpo", "progress", "processes", "sft", "triage", "attending", "ideal_reader", "run", "pipeline"),
)  # evaluation and summary are not: verify follows rows and numbers again from texts, cases and opinions


LIBRARIES = ("accelerate", "datasets", "numpy", "peft", "safetensors", "tokenizers", "torch", "transformers", "trl")


def environment() -> dict[str, str]:
    """Versions of Python and of the libraries that compute a number."""
    return {"python": platform.python_version(), **{name: version(name).split("+")[0] for name in LIBRARIES}}  # torch: without "+cpu"


def locked() -> dict[str, str]:
    """Versions of the same libraries in ``requirements.lock``."""
    pins = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines() if "==" in line)
    return {name: pins[name].split("+")[0].strip() for name in LIBRARIES}


def code_sha256() -> str:
    """Hash of the sources that decide a number."""
    files = [ROOT / "mmedlite" / f"{name}.py" for name in DECIDING]
    files += sorted((ROOT / "mmedlite" / "answers").glob("*.*"))
    files += [ROOT / "data_prep" / "drawing.py", ROOT / "data_prep" / "phantoms.py"]
    return _sources_sha256(files)


def models_sha256() -> str:
    """Hash of the sources that made the tiny models; ``data_prep tiny_base`` writes it beside them."""
    names = ("tiny_base", "tiny_model", "tiny_examples", "departments", "drawing", "phantoms")
    return _sources_sha256([ROOT / "data_prep" / f"{name}.py" for name in names])


def _sources_sha256(files: Sequence[Path]) -> str:
    return hashlib.sha256(b"".join(f.name.encode() + f.read_bytes() for f in files)).hexdigest()


def weights_sha256(folder: Path) -> str:
    """Hash of all safetensors files under a folder, in the order of their paths."""
    digests = []
    for file in sorted(folder.rglob("*.safetensors")):
        with file.open("rb") as content:
            digests.append(hashlib.file_digest(content, "sha256").digest())
    return hashlib.sha256(b"".join(digests)).hexdigest()


def no_nan(value: Any) -> Any:
    """JSON has no nan and no infinity: null instead, at any depth; numpy numbers become plain ones."""
    if isinstance(value, dict):
        return {k: no_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [no_nan(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""Where a model's files are: a folder, or one commit of a model on the hub."""

from __future__ import annotations

import json
import re
from pathlib import Path

from mmedlite.profiles import ROOT, InputError

RESTORE = "restore it from git, or run `make artifacts`"
HUB = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}")  # a model on the hub at one commit


def resolve(path: str | Path) -> Path:
    """A path of a profile: absolute, relative to the repository, or "owner/name@commit", which is downloaded from the hub.

    Raises:
        InputError: there is no such folder, or it cannot be downloaded.
    """
    full = Path(path) if Path(path).is_absolute() else ROOT / path
    if full.exists():
        return full
    if not HUB.fullmatch(str(path)):
        fix = "run `make artifacts` for the shipped one; for another do as the first lines of its profile say"
        raise InputError("no such model folder", str(full), fix)
    from huggingface_hub import snapshot_download

    repo, commit = str(path).split("@")
    try:
        return Path(snapshot_download(repo, revision=commit, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]))
    except Exception as error:  # no network, no such model, terms not accepted: the hub's own words say which
        fix = "run it again when the network is there, or download it elsewhere and name its folder in the profile"
        raise InputError(f"cannot download the model ({type(error).__name__})", str(path), fix) from error


def public_name(path: str) -> str:
    """What an adapter or a card calls a policy of a profile: its last folder, where the path is one of this machine."""
    return Path(path).name if Path(path).is_absolute() else path


def model_type(folder: Path) -> str:
    """The kind of model in a checkpoint folder, by its config.json.

    Raises:
        InputError: it is missing or no JSON.
    """
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"no checkpoint: its config.json cannot be read ({type(error).__name__})", str(folder), RESTORE) from error

"""Doctor: can this machine run a profile? One `[OK]` or `[FAIL]` line a question, each FAIL with its next step."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import tomllib
from collections.abc import Callable

from mmedlite.checkpoints import HUB
from mmedlite.profiles import ROOT, InputError, Profile, load_profile

MEMORY_GIB = 4.5  # the largest notebook of the demo, by artifacts/timings.json, and 1 GiB
DISK_GIB = 2.0  # a few run folders
GIB = 1024**3

Finding = tuple[bool, str, str]  # fine?, what was found, next step


def _project() -> dict[str, object]:
    project: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


def python(profile: Profile) -> Finding:
    """The interpreter against `requires-python`."""
    from packaging.specifiers import SpecifierSet

    wanted, found = str(_project()["requires-python"]), ".".join(map(str, sys.version_info[:3]))
    return found in SpecifierSet(wanted), f"{found} (wanted {wanted})", "install Python 3.11, then `make demo`"


def packages(profile: Profile) -> Finding:
    """Every dependency against the range of pyproject.toml."""
    from packaging.requirements import Requirement

    wrong, seen = [], []
    for line in _project()["dependencies"]:  # type: ignore[attr-defined]
        need = Requirement(line)
        try:
            found = importlib.metadata.version(need.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{need.name} is missing (wanted {need.specifier})")
            continue
        seen.append(f"{need.name} {found}")
        if not need.specifier.contains(found, prereleases=True):
            wrong.append(f"{need.name} is {found} (wanted {need.specifier})")
    fix = "`make demo` installs the locked set; on a machine whose torch is given: `pip install --editable .`"
    return not wrong, "; ".join(wrong) or f"{len(seen)} in range, {', '.join(seen[:3])}", fix


def memory(profile: Profile) -> Finding:
    """Free memory of the host in GiB."""
    import psutil

    free = psutil.virtual_memory().available / GIB
    return free >= MEMORY_GIB, f"{free:.1f} GiB free (wanted {MEMORY_GIB:.1f})", "close other programs or kernels"


def gpu(profile: Profile) -> Finding:
    """A GPU where the profile computes in half precision; none is fine in float32."""
    import torch

    if torch.cuda.is_available():
        size = torch.cuda.get_device_properties(0).total_memory / GIB
        return True, f"{torch.cuda.get_device_name(0)}, {size:.0f} GiB", ""
    fine = profile.dtype == "float32"
    fix = "use a machine with a GPU and a torch built for it, or `--profile tiny`"
    return fine, "none" + (", none needed" if fine else f", but profile '{profile.name}' needs one"), fix


def dtype(profile: Profile) -> Finding:
    """The profile's number format against the device."""
    import torch

    on_gpu = torch.cuda.is_available()
    bf16 = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    instead = "float16 in its place, " if profile.dtype == "bfloat16" and on_gpu and not bf16 else ""  # as models.load_policy takes it
    fast = [name for name, able in (("bfloat16", bf16), ("float16", on_gpu)) if able] or ["float32 only"]
    found = f"{profile.dtype} ({instead}this device: {', '.join(fast)})"
    return on_gpu or profile.dtype == "float32", found, "set `dtype` of the profile to one the device has"


def disk(profile: Profile) -> Finding:
    """Free disk space where runs are written, in GiB."""
    free = shutil.disk_usage(ROOT).free / GIB
    return free >= DISK_GIB, f"{free:.0f} GiB free (wanted {DISK_GIB:.0f})", "delete old folders in runs/"


def offline(profile: Profile) -> Finding:
    """Are the profile's weights here, so that no run needs the network?"""
    off = os.environ.get("HF_HUB_OFFLINE", "0").lower() in {"1", "true", "yes", "on"}
    state = "model downloads are off" if off else "model downloads are allowed (HF_HUB_OFFLINE=1 forbids them)"
    lacking = [name for name in (profile.policy, profile.specialists) if not any((ROOT / name).rglob("*.safetensors"))]
    later = [name for name in lacking if HUB.fullmatch(name) and not off]  # of the hub, which the first run asks
    state += f"; the first run downloads {', '.join(later)}" if later else ""
    absent = [name for name in lacking if name not in later]
    fix = "`git checkout artifacts` restores shipped weights; for others do as the first lines of the profile say"
    return not absent, state + (f"; no weights in {', '.join(absent)}" if absent else "" if later else "; the weights are here"), fix


CHECKS: dict[str, Callable[[Profile], Finding]] = {
    "python": python,
    "packages": packages,
    "memory": memory,
    "gpu": gpu,
    "dtype": dtype,
    "disk": disk,
    "offline": offline,
}


def main(profile: str) -> int:
    """Print one line a check for the profile; 1 if any failed.

    Example:
        >>> main("tiny")  # doctest: +SKIP
        [OK] python: 3.11.7 (wanted <3.13,>=3.11)
        ...
    """
    try:
        world = load_profile(profile)
    except InputError as error:
        print(f"[FAIL] profile: {error}")
        return 1
    failed = 0
    for name, check in CHECKS.items():
        try:
            fine, found, fix = check(world)
        except ImportError as error:
            fine, found, fix = False, f"cannot look: {error}", "`make demo` installs the locked set"
        print(f"[OK] {name}: {found}" if fine else f"[FAIL] {name}: {found}. Next: {fix}")
        failed += not fine
    return int(failed > 0)

"""What training asks of the machine: room for the weights, a precision it can train in, an update that the processes of a launch share
evenly, and vLLM where the profile wants it."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors import safe_open
from trl.import_utils import is_vllm_available

from mmedlite.profiles import Grpo, InputError, Profile

STORED = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1}  # bytes of a weight in a file


def rollouts_at_once(settings: Grpo) -> int:
    """How many rollouts a process scores at once: those of an update over its parts and the processes that share it.

    Raises:
        InputError: they cannot be shared out evenly.
    """
    processes = PartialState(cpu=not torch.cuda.is_available()).num_processes
    rollouts, parts = settings.prompts_per_step * settings.generations, settings.gradient_accumulation * processes
    if rollouts % parts:
        what = (f"an update of {settings.prompts_per_step} prompts x {settings.generations} generations cannot be shared evenly among "
                f"{processes} processes x {settings.gradient_accumulation} parts")  # fmt: skip
        raise InputError(what, "grpo.prompts_per_step, accelerate --num_processes", "change one of them: a group may be cut, a rollout not")
    return rollouts // parts


def check_vllm(settings: Grpo) -> None:
    """Raise an InputError where vLLM is to write the completions and cannot."""
    if not settings.vllm:
        return
    where, without = "profile, field grpo.vllm", "or set it to false: completions are then written without vLLM"
    if not torch.cuda.is_available():
        raise InputError("vLLM is to write the completions, and there is no GPU", where, f"use a machine with a GPU, {without}")
    if not is_vllm_available():
        raise InputError("vLLM is to write the completions, and it is not installed", where, f"pip install --editable '.[gpu]', {without}")


def check_machine(profile: Profile) -> None:
    """Raise an InputError where this machine cannot train the profile, whatever its checkpoint; before one is downloaded."""
    rollouts_at_once(profile.grpo)
    check_vllm(profile.grpo)
    if profile.dtype == "float16" and not torch.cuda.is_available():
        raise InputError("float16 is for GPUs", f"profile {profile.name}, field dtype", "use float32 or bfloat16 on a CPU")


def check_room(folder: Path, dtype: str) -> None:
    """Raise an InputError where the weights of a checkpoint alone do not fit into the memory."""
    on_gpu, size, weights = torch.cuda.is_available(), torch.finfo(getattr(torch, dtype)).bits // 8, 0
    for file in folder.glob("*.safetensors"):
        try:
            with safe_open(file, "pt") as stored:
                kind = stored.get_slice(next(iter(stored.keys()))).get_dtype()  # of the whole file, near enough
        except Exception as error:
            raise InputError(f"cannot read the checkpoint: {error}", str(file), "restore it, or download it again") from error
        weights += file.stat().st_size // STORED.get(kind, 4)
    memory = torch.cuda.mem_get_info()[1] if on_gpu else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if weights * size > 0.9 * memory:
        what = f"the weights alone take {weights * size / 2**30:.1f} GiB in {dtype}, and there are {memory / 2**30:.1f} GiB"
        raise InputError(what, "profile, fields policy and dtype", "use a smaller checkpoint (gpu-3b), bfloat16, or a larger machine")

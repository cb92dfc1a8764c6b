"""What training asks of the machine: an update that the processes of a launch share evenly, and vLLM where the profile wants it."""

from __future__ import annotations

import torch
from accelerate import PartialState
from trl.import_utils import is_vllm_available

from mmedlite.profiles import Grpo, InputError


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

"""Several processes, one run: ``accelerate launch --num_processes N -m mmedlite run``.

The main process runs the pipeline as it would alone, and it alone writes. The others wait for it and join it wherever it trains, so
no step but training has to know how many processes there are.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from torch import distributed
from torch.distributed.tensor import DTensor

from mmedlite import grpo
from mmedlite.models import Processor, load_policy, new_adapter
from mmedlite.profiles import Grpo, Lora
from mmedlite.rewards import accuracy_reward, format_reward


class Job(NamedTuple):
    """A training as it is told to the other processes."""

    policy: str  # folder of the checkpoint
    dtype: str
    lora: Lora
    adapter: dict[str, torch.Tensor]  # its weights before the training, on the CPU
    arguments: tuple[Any, ...]  # what grpo.train takes behind the model


def several() -> bool:
    """Is this one of several processes of one launch?"""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_main() -> bool:
    """Is this the process that runs the pipeline?"""
    return os.environ.get("RANK", "0") == "0"


@cache
def _waiting() -> Any:
    """Where the others wait for the main process, which may be busy for hours: on the CPU, without GPU traffic's short patience."""
    PartialState(cpu=not torch.cuda.is_available())
    return distributed.new_group(backend="gloo", timeout=timedelta(days=30))


def _tell(job: Job | None = None) -> Job | None:
    """What the main process tells, in every process. Pickled, but between the processes of one launch only."""
    told = [job]
    distributed.broadcast_object_list(told, src=0, group=_waiting())
    return told[0]


def join_trainings() -> int:
    """Wait for the main process and join each of its trainings, until it dismisses this one; the exit status."""
    while True:
        try:
            job = _tell()
        except RuntimeError:  # the main process ended before its last training, and said why
            return 1
        if job is None:
            return 0
        _train(job)


def dismiss() -> None:
    """The main process has nothing left to train: the others may end."""
    if several():
        _tell(None)


def _train(job: Job) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """Train on a policy of this process's own; the step log and the adapter's weights, the same in every process."""
    model = new_adapter(load_policy(job.policy, job.dtype), job.lora)
    model.load_state_dict(job.adapter, strict=False)
    log = grpo.train(model, *job.arguments)
    return log, whole_adapter(model)


def whole_adapter(model: Any) -> dict[str, torch.Tensor]:
    """The weights of the adapter "default" on the CPU, whole where FSDP has spread them over the processes."""
    weights = {name: w for name, w in model.state_dict().items() if ".default." in name}
    return {name: (w.full_tensor() if isinstance(w, DTensor) else w).detach().cpu() for name, w in weights.items()}


def train(
    model: Any, processor: Processor, rows: Sequence[dict[str, Any]], settings: Grpo, out: Path, info: dict[str, Any], seed: int,
    rewards: Sequence[grpo.Reward] = (format_reward, accuracy_reward), learning_rate: float | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """:func:`grpo.train`, by all processes of the launch.

    What several of them train, and FSDP spreads over them, is a copy of ``model``: the main process goes on with a whole one.
    """
    if not several():
        log = grpo.train(model, processor, rows, settings, out, info, seed, rewards, learning_rate)
        gc.collect()  # the trainer and its model hold each other, and the next training needs the room
        return log
    device, base, lora = model.device, model.get_base_model(), model.peft_config["default"]
    arguments = (processor, rows, settings, out, info, seed, rewards, learning_rate)
    dtype = str(base.dtype).removeprefix("torch.")
    job = Job(base.name_or_path, dtype, Lora(lora.r, lora.lora_alpha), whole_adapter(model), arguments)
    model.to("cpu")  # room for the copy
    _tell(job)
    log, adapter = _train(job)
    gc.collect()  # the trainer and its copy hold each other
    model.load_state_dict(adapter, strict=False)
    model.to(device)
    return log

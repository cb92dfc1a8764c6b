"""Short trainings on given rollouts, every step of them written down: ``[accelerate launch ...] -m tests.given OUT POLICY [fsdp]``.

Generation draws from a random stream of each process, so that two processes write other rollouts than one. Here the rollouts are
drawn beforehand, and all else must come out the same. Two damaged trainings are there to show that a fault is seen.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, gather_object
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback
from trl.trainer import grpo_trainer

from mmedlite import grpo, processes
from mmedlite.models import load_policy, new_adapter
from tests.small import LORA, SETTINGS, adapter, chance, processor, rows

CUT = replace(SETTINGS, prompts_per_step=3, generations=2, learning_rate=1e-3)  # of two processes, each holds a group and a half
PARTS = replace(SETTINGS, gradient_accumulation=2, learning_rate=1e-3)
SEEN: dict[str, torch.Tensor] = {}  # loss, gradient and adapter of each step of a training


def note(name: str, model: Any, of: Callable[[Any], torch.Tensor]) -> None:
    """Remember a tensor of each trainable weight, whole, under the name that it has in a bare model."""
    for weight, p in model.named_parameters():
        if ".default." in weight:
            bare, tensor = weight.removeprefix("module.").replace("_checkpoint_wrapped_module.", ""), of(p).detach()
            SEEN[f"{name}/{bare}"] = (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()


class Note(TrainerCallback):
    """The gradient that an update takes, and the weights that it leaves."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        note(f"{state.global_step}/gradient", model, lambda p: p.grad)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        note(f"{state.global_step - 1}/adapter", model, lambda p: p)


class Given(grpo.CurriculumTrainer):
    """The trainer, with rollouts drawn by step and place in the update."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_callback(Note())

    def _generate_single_turn(self, prompt_ids: Sequence[Any], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        first = self.accelerator.process_index * len(prompt_ids)
        draws = [np.random.default_rng([self.state.global_step, first + i]) for i in range(len(prompt_ids))]
        return [rng.integers(20, 400, rng.integers(1, self.max_completion_length + 1)).tolist() for rng in draws], None

    def training_step(self, *args: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*args)
        name = f"{self.state.global_step}/loss"
        SEEN[name] = SEEN.get(name, torch.zeros(())) + self.accelerator.reduce(loss.detach(), "mean")
        return loss


class NotAveraged(Given):
    """Damaged: each process goes by its own gradient."""

    def training_step(self, model: Any, *args: Any) -> torch.Tensor:
        with model.no_sync():
            return super().training_step(model, *args)


@contextlib.contextmanager
def own_groups() -> Iterator[None]:
    """Damaged: each process takes its own rewards for those of the update."""
    with mock.patch.object(grpo_trainer, "gather", lambda rewards: rewards.repeat(2, 1)):
        yield


def train(out: Path, policy: Path, settings: Any, trainer: type = Given) -> None:
    """Three steps on a fresh adapter, by all processes; what was seen lies in ``out/seen.safetensors``, the log in ``out/log.json``."""
    SEEN.clear()
    with mock.patch.object(grpo, "CurriculumTrainer", trainer):
        if not processes.is_main():
            processes.join_trainings()
            return
        torch.manual_seed(0)
        model = new_adapter(load_policy(policy), LORA)
        batch = rows(3 * settings.prompts_per_step, gamma=0.05, kl_weight=0.2)
        log = processes.train(model, processor(), batch, settings, out, {"stage": "given"}, 0, [chance])
        processes.dismiss()
    save_file({**SEEN, **{f"end/adapter/{n}": w for n, w in adapter(model).items()}}, out / "seen.safetensors")
    (out / "log.json").write_text(json.dumps(log), encoding="utf-8")


class Stopped:
    """A reward that is interrupted in every process at its n-th call, as by Ctrl-C."""

    __name__ = "stopped"

    def __init__(self, call: int) -> None:
        self.call, self.calls = call, 0

    def __call__(self, completions: Sequence[Any], **columns: Any) -> list[float]:
        self.calls += 1
        if self.calls == self.call:
            raise KeyboardInterrupt
        return chance(completions, **columns)


def stop_and_go_on(out: Path, policy: Path) -> None:
    """Fourteen steps with rollouts of the processes' own: in one go, and stopped in step 12 and taken up from step 10."""
    settings = replace(SETTINGS, generations=2)

    def stage(name: str, reward: Any) -> None:
        torch.manual_seed(0)
        model = new_adapter(load_policy(policy), LORA)
        log = grpo.train(model, processor(), rows(28), settings, out / name, {"stage": "s"}, 0, [reward])
        weights = processes.whole_adapter(model)
        every = gather_object([{n: w.sum().item() for n, w in weights.items()}])
        if processes.is_main():
            save_file(weights, out / name / "adapter.safetensors")
            (out / name / "log.json").write_text(json.dumps([log, every]), encoding="utf-8")

    stage("whole", chance)
    with contextlib.suppress(KeyboardInterrupt):
        stage("stopped", Stopped(12))
    stage("stopped", chance)


class EndsEarly(Given):
    """Writes rollouts of its own, of which each process's end at another step; with FSDP none may stop before the others do."""

    def _generate_single_turn(self, *args: Any, **more: Any) -> Any:
        self.eos_token_ids = self.generation_config.eos_token_id = list(range(100, 250))
        return super(Given, self)._generate_single_turn(*args, **more)


def fsdp_on_cpu() -> None:
    """Make accelerate take CPUs for GPUs that talk through gloo: it knows FSDP for GPUs only, torch knows it for both."""
    start, numpy = PartialState.__init__, torch.Tensor.numpy
    PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)
    PartialState.set_device = lambda self: setattr(self, "device", torch.device("cpu"))
    PartialState.__init__ = lambda self, cpu=False, backend=None, **more: start(self, **more)
    torch.Tensor.numpy = lambda self, **more: numpy(self.clone(), **more)  # of memory that numpy shares, FSDP could free none


def main(out: Path, policy: Path, fsdp: bool = False) -> None:
    """All trainings; the damaged ones and the stopped one only where there are two processes."""
    torch.set_num_threads(1)
    if fsdp:
        fsdp_on_cpu()
        train(out / "cut", policy, CUT)
        train(out / "early", policy, replace(CUT, max_new_tokens=30), EndsEarly)
        return
    train(out / "cut", policy, CUT)
    train(out / "parts", policy, PARTS)
    if processes.several():
        train(out / "not_averaged", policy, CUT, NotAveraged)
        with own_groups():
            train(out / "own_groups", policy, CUT)
        stop_and_go_on(out, policy)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), "fsdp" in sys.argv[3:])

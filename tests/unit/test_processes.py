"""Several processes: what is checked without starting them. What two of them do is in tests/slow/test_processes.py."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env

from mmedlite import devices, grpo, processes
from mmedlite.models import VISION_TOKENS
from mmedlite.profiles import InputError
from mmedlite.run import Run
from tests.small import SETTINGS, adapter, base, chance, policy, processor, profile, rows, same


def among(processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "PartialState", lambda **_: SimpleNamespace(num_processes=processes))


@pytest.mark.parametrize(("processes", "parts", "at_once"), [(1, 1, 8), (2, 1, 4), (4, 1, 2), (8, 1, 1), (2, 2, 2), (1, 4, 2)])
def test_rollouts_are_shared_out(processes: int, parts: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 prompts x 4 rollouts, over processes and parts: a group may be cut, since the advantages are taken over all processes."""
    among(processes, monkeypatch)
    assert devices.rollouts_at_once(replace(SETTINGS, gradient_accumulation=parts)) == at_once


@pytest.mark.parametrize(("processes", "parts"), [(3, 1), (16, 1), (2, 8)])
def test_an_uneven_share_is_refused_before_training(processes: int, parts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    among(processes, monkeypatch)
    with pytest.raises(InputError, match=f"2 prompts x 4 generations cannot be shared evenly among {processes} processes x {parts} parts"):
        grpo.train(policy(), processor(), rows(2), replace(SETTINGS, gradient_accumulation=parts), tmp_path / "out", {"stage": "s"}, 0)
    assert not (tmp_path / "out").exists()


def test_a_process_alone_is_the_main_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    assert processes.is_main() and not processes.several()
    processes.dismiss()  # nobody waits
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert processes.several() and not processes.is_main()


def test_alone_the_model_itself_is_trained(tmp_path: Path) -> None:
    models = policy(), policy()
    for train, model in zip((grpo.train, processes.train), models, strict=True):
        train(model, processor(), rows(4), SETTINGS, tmp_path / str(id(train)), {"stage": "s"}, 0, [chance])
    assert same(adapter(models[0]), adapter(models[1]))


def test_the_whole_adapter() -> None:
    model = policy()
    assert same(processes.whole_adapter(model), adapter(model))
    other = policy(seed=1)
    other.load_state_dict(processes.whole_adapter(model), strict=False)
    assert same(adapter(other), adapter(model))


@pytest.mark.parametrize("told", [[None], RuntimeError])
def test_a_helper_ends_with_the_main_process(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dismissed, or left behind by a main process that ended with an error of its own."""
    monkeypatch.setattr(processes, "_tell", mock.Mock(side_effect=told))
    assert processes.join_trainings() == int(told is RuntimeError)


# ---- FSDP

FSDP = Path(grpo.__file__).parent / "profiles" / "fsdp.yaml"


def test_accelerate_reads_the_fsdp_configuration() -> None:
    """As `accelerate launch` does: the file, then the environment of a process, then the plugin that shards."""
    read = load_config_from_file(str(FSDP))
    assert read.distributed_type.value == "FSDP" and read.mixed_precision == "bf16" and read.num_processes > 1
    args = launch_command_parser().parse_args(["--config_file", str(FSDP), "-m", "mmedlite"])
    assert all(hasattr(args, name) for name in read.fsdp_config)  # else it would be passed over in silence
    args, _, _ = _validate_launch_command(args)
    assert args.use_fsdp and args.mixed_precision == "bf16"
    with mock.patch.dict(os.environ):
        os.environ.update(prepare_multi_gpu_env(args))
        plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward and plugin.activation_checkpointing
    plugin.set_auto_wrap_policy(model := base())
    wrapped: Callable[..., Any] = plugin.auto_wrap_policy
    layers = wrapped.keywords["transformer_layer_cls"]  # type: ignore[attr-defined]
    assert {type(m) for m in model.modules() if isinstance(m, tuple(layers))} == {type(model.model.language_model.layers[0])}
    assert not any(isinstance(m, tuple(layers)) for m in model.model.visual.modules())


# ---- room and precision


@pytest.mark.parametrize(("dtype", "memory", "told"), [
    ("float32", 1 << 30, ""), ("float32", 2_000_000, "the weights alone take"), ("bfloat16", 2_000_000, "the weights alone take"),
    ("bfloat16", 6_000_000, ""), ("float32", 4_000_000, "the weights alone take"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(dtype: str, memory: int, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """About 1.2 M weights: 4.8 MB in single precision, half of it in half precision."""
    base(shared=False).save_pretrained(tmp_path, max_shard_size="1MB")
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices.os, "sysconf", lambda name: 1 if name == "SC_PAGE_SIZE" else memory)
    with pytest.raises(InputError, match=f"{told}.*policy and dtype") if told else contextlib.nullcontext():
        devices.check_room(tmp_path, dtype)


@pytest.mark.parametrize(("change", "told"), [
    (("dtype = ", 'dtype = "float16" #'), "float16 is for GPUs"), (("vllm = false", "vllm = true"), "vLLM"),
])  # fmt: skip
def test_a_machine_is_refused_before_a_checkpoint_is_downloaded(change: tuple[str, str], told: str, tmp_path: Path) -> None:
    commit = "0" * 40
    with pytest.raises(InputError, match=told):
        Run(tmp_path / "run", str(profile(tmp_path, ("policy = ", f'policy = "owner/name@{commit}" #'), change)), tmp_path / "no cases")


def test_a_gpus_memory_counts_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base(shared=False).save_pretrained(tmp_path)
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices.torch.cuda, "mem_get_info", lambda: (0, 3_000_000))
    devices.check_room(tmp_path, "float16")
    with pytest.raises(InputError, match="use a smaller checkpoint"):
        devices.check_room(tmp_path, "float32")
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(InputError, match=r"cannot read the checkpoint.*model\.safetensors"):
        devices.check_room(tmp_path, "float16")


# ---- vLLM

WITH_VLLM = replace(SETTINGS, vllm=True)


@pytest.mark.parametrize(
    ("gpu", "installed", "told"), [(False, True, "there is no GPU"), (True, False, "it is not installed"), (True, True, "")]
)
def test_vllm_is_refused_where_it_cannot_serve(gpu: bool, installed: bool, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(devices, "is_vllm_available", lambda: installed)
    devices.check_vllm(SETTINGS)
    with pytest.raises(InputError, match=f"{told}.*grpo.vllm.*set it to false") if told else contextlib.nullcontext():
        devices.check_vllm(WITH_VLLM)


def test_vllm_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="vLLM is to write the completions"):
        grpo.train(policy(), processor(), rows(2), WITH_VLLM, tmp_path / "out", {"stage": "s"}, 0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("settings", [SETTINGS, WITH_VLLM])
def test_the_profiles_wish_reaches_trl(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no token that stands for a picture is written either way: vLLM knows no suppress_tokens."""
    monkeypatch.setattr(grpo, "check_vllm", lambda _: None)
    monkeypatch.setattr(grpo, "CurriculumTrainer", asked := mock.Mock(side_effect=RuntimeError))
    with pytest.raises(RuntimeError):
        grpo.train(policy(), processor(), rows(2), settings, tmp_path, {"stage": "s"}, 0)
    config = asked.call_args.kwargs["args"]
    never = [processor().tokenizer.convert_tokens_to_ids(t) for t in VISION_TOKENS]
    assert config.use_vllm == settings.vllm and config.vllm_mode == "colocate"
    assert (config.top_p, config.top_k, config.temperature) == (1.0, 0, 1.0)
    assert config.generation_kwargs == ({"logit_bias": dict.fromkeys(never, -100.0)} if settings.vllm else {"suppress_tokens": never})

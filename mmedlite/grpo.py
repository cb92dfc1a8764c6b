"""GRPO with an entropy coefficient and a KL weight per sample: a thin layer over TRL's trainer (paper Eq. 2.1 and 3.1).

TRL forms the groups, the advantages and the clipped objective; short overrides add what the paper needs:
J = E[ J_GRPO + gamma_s * H ], with gamma and beta of each sample's bucket. Entropy is the mean over a completion's tokens of the
full-vocabulary entropy, then over completions (the paper does not say how it averages). The reference is the policy at the start
of the stage.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from PIL import Image
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from mmedlite import dose, prompt_once
from mmedlite.devices import check_vllm, rollouts_at_once
from mmedlite.models import VISION_TOKENS, Processor, picture_tokens
from mmedlite.profiles import Grpo, InputError
from mmedlite.progress import Progress
from mmedlite.provenance import code_sha256
from mmedlite.rewards import accuracy_reward, format_reward

Reward = Callable[..., list[float]]
BASE_BETA = 1e-9  # not 0, or TRL builds no reference; each sample's own KL weight is added in the loss


class CurriculumTrainer(GRPOTrainer):
    """TRL's GRPO trainer with ``gamma`` and ``beta`` taken from each row of the data set."""

    def __init__(self, *args: Any, rollout_file: Path, rollout_info: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rollout_file, self.rollout_info = rollout_file, rollout_info
        self.step_log: list[dict[str, Any]] = []

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        out: dict[str, Any] = super()._generate_and_score_completions(inputs)
        device = out["completion_ids"].device
        for name in ("gamma", "kl_weight"):
            out[name] = torch.tensor([row[name] for row in inputs], device=device)  # (B,)
        out["row"] = torch.arange(len(inputs), device=device)  # (B,), since TRL shuffles what it hands to the loss
        self._logps = torch.zeros(len(inputs), 2, device=device)  # filled by the loss: policy and reference
        self._record(inputs, out)
        self._pulls: dict[str, list[torch.Tensor]] = {}  # gradient of each term, added up over the parts of the update
        if self.state.global_step % dose.EVERY == 0:
            texts = self._texts(out)
            self.step_log[-1] |= dose.decisions(self.accelerator, self.model, self.processing_class, inputs, texts, self.num_generations)
        return out

    def _calculate_rewards(self, inputs: list[dict[str, Any]], *args: Any) -> torch.Tensor:
        rewards: torch.Tensor = super()._calculate_rewards(inputs, *args)  # (B of all processes, reward functions)
        for name, values in zip(self.reward_func_names, rewards.T, strict=True):
            if not values.isfinite().all():  # TRL would leave the rollout out and say nothing
                count, step = int((~values.isfinite()).sum()), self.state.global_step + 1
                what = f"the reward '{name}' is not a number for {count} rollouts of step {step}"
                raise InputError(what, fix="mend the reward function; the same command or cell goes on from the last checkpoint")
        return rewards

    def _texts(self, out: dict[str, Any]) -> list[str]:
        ids, mask = out["completion_ids"], out["completion_mask"].bool()  # (B, T)
        return [self._tokenizer.decode(i[m], skip_special_tokens=True).strip() for i, m in zip(ids, mask, strict=True)]

    def whole_checkpoint(self) -> Path | None:
        """The last checkpoint that was written to its end."""
        saved = [p.parent for p in Path(self.args.output_dir).glob("checkpoint-*/steps.json")]
        return max(saved, key=lambda p: int(p.name.split("-")[1]), default=None)

    def take_up(self) -> Path | None:
        """The last whole checkpoint, if there is one; the step log and the rollouts are brought back to where it was saved."""
        last = self.whole_checkpoint()
        if last is not None:
            self.step_log = json.loads((last / "steps.json").read_text(encoding="utf-8"))
        if not self.accelerator.is_main_process:
            return last
        lines = self.rollout_file.read_text(encoding="utf-8").splitlines(keepends=True) if self.rollout_file.exists() else []
        before = list(itertools.takewhile(lambda line: json.loads(line)["stage"] != self.rollout_info["stage"], lines))
        kept = lines[: len(before) + len(self.step_log) * self.args.generation_batch_size]  # rollouts a step, of all processes
        (part := self.rollout_file.with_suffix(".part")).write_text("".join(kept), encoding="utf-8")
        part.replace(self.rollout_file)  # in one step: a kill here loses nothing
        return last

    def _load_from_checkpoint(self, folder: str, model: Any = None) -> None:
        super()._load_from_checkpoint(folder, model)
        if not self.is_fsdp_enabled:  # transformers before 5.23 reads back the reference's adapter alone
            self.model.load_adapter(folder, "default", is_trainable=True)

    def _record(self, inputs: list[dict[str, Any]], out: dict[str, Any]) -> None:
        """One row a rollout, for :meth:`write_rollouts`, and the row of the step log that the loss goes on with.

        Each process holds a part of the update, in the order of the processes; every one gets the rows of all.
        """
        mask, texts = out["completion_mask"].bool(), self._texts(out)  # mask (B, T)
        columns = {k: [row[k] for row in inputs] for k in ("options", "answer")}
        parts = {"format": format_reward(texts, **columns), "accuracy": accuracy_reward(texts, **columns)}
        first = self.accelerator.process_index * len(inputs)  # a group may begin in the process before
        rows = gather_object([
            {
                **self.rollout_info, "step": self.state.global_step, "case_id": row["case_id"],
                "sample_index": (first + i) % self.num_generations, "text": text, "tokens": int(m.sum()),
                "format": parts["format"][i], "accuracy": parts["accuracy"][i], "advantage": round(float(a), 4),
                "gamma": row["gamma"], "beta": row["kl_weight"],
            }
            for i, (row, text, m, a) in enumerate(zip(inputs, texts, mask, out["advantages"], strict=True))
        ])  # fmt: skip
        self._rollouts = rows
        n, advantages = len(rows), self.accelerator.gather(out["advantages"])  # (n,)
        self.step_log.append({
            **self.rollout_info, "step": self.state.global_step + 1,
            "format": sum(r["format"] for r in rows) / n, "accuracy": sum(r["accuracy"] for r in rows) / n,
            "truncated": sum(r["tokens"] == self.max_completion_length for r in rows) / n,
            "equal_groups": float((advantages.view(-1, self.num_generations).abs().sum(1) == 0).float().mean()),
            "sample": rows[0]["text"],
        })  # fmt: skip

    def write_rollouts(self) -> None:
        """Append the update's rollouts to rollouts.jsonl: its lines, in the order seen, prove the order of the curriculum."""
        logps = self.accelerator.gather(self._logps).tolist()
        if self.accelerator.is_main_process:
            rows = [r | {"logp": round(p, 3), "logp_reference": round(q, 3)} for r, (p, q) in zip(self._rollouts, logps, strict=True)]
            with self.rollout_file.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(r) + "\n" for r in rows)

    def _get_per_token_logps_and_entropies(
        self, model: Any, ids: torch.Tensor, mask: torch.Tensor, keep: int, *args: Any, compute_entropy: bool = False, **kwargs: Any
    ) -> Any:
        if prompt_once.can_share(model, ids, kwargs.get("image_grid_thw")):
            pixels, grid = kwargs["pixel_values"], kwargs["image_grid_thw"]
            size = kwargs.get("batch_size") or len(ids)  # rows at once, as TRL asks: what a pass without gradients may hold
            parts = zip(ids.split(size), mask.split(size), pixels.split([int(g.prod(1).sum()) for g in grid.split(size)]), grid.split(size),
                        strict=True)  # fmt: skip
            with self.accelerator.autocast():
                scored = [prompt_once.score(model, i, m, keep, p, g) for i, m, p, g in parts]
            logps, entropies = (torch.cat(part) for part in zip(*scored, strict=True))
        else:
            more = {"compute_entropy": compute_entropy, **kwargs}
            logps, entropies, _ = super()._get_per_token_logps_and_entropies(model, ids, mask, keep, *args, **more)
        if compute_entropy:
            self._scored = (logps, entropies)  # (B, T) each
        return logps, entropies, None

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        loss = super()._compute_loss(model, inputs)
        logps, entropies = self._scored
        mask = inputs["completion_mask"]  # (B, T)
        length = mask.sum(1).clamp(min=1)  # (B,)
        share = self.current_gradient_accumulation_steps
        entropy = (entropies * mask).sum(1) / length  # (B,), nats
        both = torch.stack([logps.detach(), inputs["ref_per_token_logps"]], 2)  # (B, T, 2)
        self._logps[inputs["row"]] = (both * mask[..., None]).sum(1) / length[:, None]  # nats a token
        delta = inputs["ref_per_token_logps"] - logps
        kl = ((torch.exp(delta) - delta - 1) * mask).sum(1) / length  # (B,), the k3 estimator
        bonus = (inputs["gamma"] * entropy).mean()
        penalty = ((inputs["kl_weight"] - self.beta) * kl).mean()
        whole = loss + (penalty - bonus) / share
        if self.step_log:
            seen = {"loss": whole.detach() * share, "entropy": entropy.detach(), "kl": kl.detach()}
            seen |= {"gamma": inputs["gamma"], "beta": inputs["kl_weight"]}
            means = self.accelerator.reduce({name: values.mean() for name, values in seen.items()}, "mean")  # over the processes
            row = self.step_log[-1]
            row |= {name: row.get(name, 0.0) + float(value) / share for name, value in means.items()}  # over the parts of the update
            if self.state.global_step % dose.EVERY == 0 and not self.is_fsdp_enabled:  # FSDP gives gradients only to backward()
                weights = [p for p in model.parameters() if p.requires_grad]
                for name, term in (("policy", loss), ("entropy", bonus / share)):
                    pull = dose.gradient(term, weights)
                    self._pulls[name] = [a + b for a, b in zip(self._pulls[name], pull, strict=True)] if name in self._pulls else pull
                    row[f"{name}_gradient"] = dose.norm(self.accelerator.reduce(self._pulls[name], "mean"))
        return whole


def train(
    model: Any, processor: Processor, rows: Sequence[dict[str, Any]], settings: Grpo, out: Path, info: dict[str, Any], seed: int,
    rewards: Sequence[Reward] = (format_reward, accuracy_reward), learning_rate: float | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Train the LoRA adapter "default" of ``model`` on ``rows``, in their order, one visit a row.

    Under ``accelerate launch`` every process calls this with the same arguments; the main one writes.

    Args:
        model: PeftModel with a trainable adapter "default"; a frozen copy of it becomes the reference.
        rows: one dict a visit: prompt (text), image (PIL), options, answer, case_id, gamma, kl_weight.
        out: folder for rollouts.jsonl, steps.jsonl and, while training, checkpoints; one found there is resumed. Stages that share a
            folder write their rollouts one behind the other; what lies there of this stage, and behind it, is written anew.
        info: columns put on every rollout and log row, with at least "stage".

    Returns:
        One log row a step: loss, format, accuracy, entropy (nats, mean over tokens), kl, gamma, beta, equal_groups, truncated; every
        ``dose.EVERY`` steps also decision_entropy beside its maximum ln K (nats), and the gradient norms of policy and entropy term.

    Raises:
        InputError: fewer rows than one update, trainable weights outside the adapter (as an unfrozen tower), an update that the
            processes cannot share evenly, vLLM wanted and not there; or, with the last checkpoint kept, a reward that is no number.
        KeyboardInterrupt: on Ctrl-C, after saying which checkpoint is kept and how to go on.
    """
    per_step = settings.prompts_per_step
    if len(rows) < per_step:
        raise InputError(f"{len(rows)} rows are fewer than one update of {per_step}", fix="lower grpo.prompts_per_step")
    if any("image" not in row for row in rows):
        raise InputError("a row has no picture, or several: one 'image' is wanted in each", fix="show the policy one picture a case")
    if loose := [name for name, p in model.named_parameters() if p.requires_grad and ".default." not in name]:
        what = f"{len(loose)} weights outside the adapter are trainable, the first {loose[0]}; they would move the reference too"
        raise InputError(what, fix="freeze them: requires_grad_(False)")
    check_vllm(settings)
    steps, micro = len(rows) // per_step, rollouts_at_once(settings)
    out.mkdir(parents=True, exist_ok=True)
    if "ref" in model.peft_config:  # of the stage before
        model.delete_adapter("ref")
        model.set_adapter("default")
    never = picture_tokens(processor, VISION_TOKENS)
    on_gpu, half = torch.cuda.is_available(), model.dtype == torch.float16
    # A checkpoint of other code, another seed, recipe, case order or number of processes is not taken up: its folder bears another name.
    visits = [(r["case_id"], r["prompt"], r["gamma"], r["kl_weight"]) for r in rows]
    plan = [code_sha256(), seed, micro, learning_rate, asdict(settings), visits]
    checkpoints = out / f"checkpoints-{hashlib.sha256(json.dumps(plan).encode()).hexdigest()[:12]}"
    config = GRPOConfig(
        output_dir=str(checkpoints), per_device_train_batch_size=micro, num_generations=settings.generations,
        gradient_accumulation_steps=settings.gradient_accumulation, max_completion_length=settings.max_new_tokens,
        learning_rate=learning_rate or settings.learning_rate, lr_scheduler_type="linear", max_steps=steps,
        beta=BASE_BETA, entropy_coef=0.0, loss_type="grpo", scale_rewards="group", use_bias_correction_kl=False,
        shuffle_dataset=False, temperature=settings.temperature, top_p=1.0, top_k=0, seed=seed, data_seed=seed,
        use_vllm=settings.vllm, vllm_mode="colocate",
        generation_kwargs={"logit_bias": dict.fromkeys(never, -100.0)} if settings.vllm else {"suppress_tokens": never},
        bf16=on_gpu and not half and torch.cuda.is_bf16_supported(False), fp16=on_gpu and half, use_cpu=not on_gpu, disable_tqdm=True,
        gradient_checkpointing=settings.gradient_checkpointing, report_to="none", logging_steps=10**6,
        save_strategy="steps", save_steps=10, save_total_limit=2,  # the older one, until steps.json is beside the younger
        ddp_find_unused_parameters=False,
    )  # fmt: skip
    chats = [{**r, "prompt": [{"role": "user", "content": r["prompt"]}]} for r in rows]

    def look_up(part: dict[str, list[int]]) -> dict[str, list[Any]]:
        shown = {i: image() if callable(image := chats[i]["image"]) else image for i in set(part["row"])}  # opened for this step alone
        return {name: [shown[i] if name == "image" else chats[i][name] for i in part["row"]] for name in chats[0]}

    data = Dataset.from_dict({"row": range(len(rows))}).with_transform(look_up)  # pictures stay as they are, not packed and unpacked
    trainer = CurriculumTrainer(model=model, reward_funcs=list(rewards), args=config, train_dataset=data, processing_class=processor,
                                rollout_file=out / "rollouts.jsonl", rollout_info=info)  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Progress(info.get("stage", "training"), trainer))
    saved = trainer.take_up()
    try:
        trainer.train(resume_from_checkpoint=str(saved) if saved else None)
    except KeyboardInterrupt:
        kept = trainer.whole_checkpoint()
        if trainer.accelerator.is_main_process:
            print(f"Stopped at step {trainer.state.global_step} of {steps}. Kept: {kept or 'no checkpoint yet'}. "
                  "Run the same command or cell again to go on from there.")  # fmt: skip
        raise
    trainer.accelerator.wait_for_everyone()
    for old in out.glob("checkpoints-*") if trainer.accelerator.is_main_process else ():
        shutil.rmtree(old)
    model.eval()
    return trainer.step_log


def picture_rows(
    pictures: Sequence[Image.Image | Callable[[], Image.Image]], prompts: Sequence[str], options: Sequence[Sequence[str]],
    answers: Sequence[int], case_ids: Sequence[str], gamma: Sequence[float], kl_weight: Sequence[float],
) -> list[dict[str, Any]]:  # fmt: skip
    """The rows that :func:`train` takes, from columns of equal length; a picture may be a function that opens it."""
    names = ("image", "prompt", "options", "answer", "case_id", "gamma", "kl_weight")
    columns = (pictures, prompts, map(list, options), map(int, answers), case_ids, map(float, gamma), map(float, kl_weight))
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

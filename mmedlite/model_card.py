"""The model card of a trained attending: data, stages, settings, numbers and limits, as README.md beside its adapter."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mmedlite.checkpoints import public_name
from mmedlite.evaluation import with_interval
from mmedlite.run import Run

LIMITS = (
    "**Not for clinical use.** One training seed. Multiple-choice questions alone; the answer is a choice among options that are given, "
    "with the answers of three specialists in the prompt, and may follow them where they are wrong."
)


def model_card(run: Run, panel: str, numbers: dict[str, Any]) -> str:
    """The card of one panel's policy; numbers: as from ``summary.attending_numbers``."""
    profile, train = run.profile, run.cases("train")
    policy, source = public_name(profile.policy), run.specialists.form.source
    data = [f"- {n:,} cases of {name} ({licence})" for (name, licence), n in sorted(Counter((c.source, c.licence) for c in train).items())]
    stages = [f"- {s.name}: {', '.join(s.buckets)} cases, {s.steps or 'one epoch of'} updates, entropy coefficients {list(s.gamma)}, "
              f"KL weights {list(s.beta)}" for s in run.stages_that_fit(panel, profile.attending.recipe)]  # fmt: skip
    systems = {"trained": "this policy", "untrained_panel": "the policy before training", "majority_vote": "majority vote of the panel"}
    told = [f"- {title}: {with_interval(numbers[name], numbers[f'{name}_ci'])}" for name, title in systems.items() if name in numbers]
    grpo, lora = profile.grpo, profile.lora
    return "\n".join([
        "---", f"base_model: {policy.split('@')[0]}", "library_name: peft", "tags: [lora, grpo, medical-vqa, research-only]", "---",
        f"# Attending physician, {panel} panel", "",
        f"LoRA adapter on `{policy}`, trained with GRPO by MMedLite to decide after three specialist answers (MMedAgent-RL, "
        "arXiv 2506.00555). Load it with `PeftModel.from_pretrained`.", "",
        "## Data", *data, f"- specialists: {source}, {', '.join(profile.panels[panel])}",
        f"- case table sha256 {run.facts['cases_sha256']}", "",
        "## Training", *stages,
        f"- {grpo.prompts_per_step} prompts x {grpo.generations} rollouts an update, temperature {grpo.temperature}, "
        f"learning rate {grpo.learning_rate}, LoRA r {lora.r} alpha {lora.alpha}, seed {run.seed}, code {run.facts['code'][:12]}", "",
        f"## Test accuracy (n = {len(run.cases('test')):,}, greedy, 95 % Wilson)", *told, "", "## Limits", LIMITS, "",
    ])  # fmt: skip


def write_card(run: Run, panel: str, numbers: dict[str, Any]) -> None:
    """Write it beside the adapter of the last stage, where this run has trained one."""
    folder = run.folder / "adapters" / panel / run.stages_that_fit(panel, run.profile.attending.recipe)[-1].name
    if folder.exists():
        (folder / "README.md").write_text(model_card(run, panel, numbers), encoding="utf-8")

"""What a training tells while it runs: a line with time left, a sampled rollout every few steps, each step's row in steps.jsonl."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Progress(TrainerCallback):
    """Tells of each step of a :class:`grpo.CurriculumTrainer`, and marks its checkpoints as whole."""

    def __init__(self, label: str, trainer: Any) -> None:
        self.label, self.trainer = label, trainer

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        hidden = not state.is_world_process_zero
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.label, mininterval=2, ncols=110, disable=hidden)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.trainer.write_rollouts()
        row = self.trainer.step_log[-1]
        self.bar.set_postfix(acc=f"{row['accuracy']:.2f}", H=f"{row['entropy']:.2f}", refresh=False)
        self.bar.update()
        if state.is_world_process_zero:
            with (Path(args.output_dir).parent / "steps.jsonl").open("a", encoding="utf-8") as file:  # for who watches
                file.write(json.dumps({**row, "steps": state.max_steps, "time": time.time()}) + "\n")
            if state.global_step % max(1, state.max_steps // 4) == 0:
                tqdm.write(f"  step {state.global_step}: {row['sample']}", file=sys.stderr)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.bar.close()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # Written last, when every process has put its part there, so that its presence marks a whole checkpoint.
        self.trainer.accelerator.wait_for_everyone()
        if state.is_world_process_zero:
            file = Path(args.output_dir) / f"checkpoint-{state.global_step}" / "steps.json"
            (part := file.with_suffix(".part")).write_text(json.dumps(self.trainer.step_log), encoding="utf-8")
            part.replace(file)

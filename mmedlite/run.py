"""A run is one folder: the steps of the pipeline, each reading what the one before it stored.

Notebooks and ``python -m mmedlite run`` call the same methods. A step that this run has not taken yet is read from the stored
reference run in ``artifacts/reference``, so that each notebook runs alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mmedlite import attending, triage
from mmedlite.answers import parse_strict
from mmedlite.cases import Case, CaseTable, read_table
from mmedlite.checkpoints import public_name, resolve
from mmedlite.curriculum import bucket, stage_order
from mmedlite.devices import check_machine, check_room
from mmedlite.evaluation import result_row
from mmedlite.grpo import Reward
from mmedlite.models import check_adapter, load_adapter, load_policy, load_processor, merged, new_adapter
from mmedlite.profiles import ROOT, InputError, Stage, load_profile
from mmedlite.provenance import code_sha256, no_nan, weights_sha256
from mmedlite.rewards import accuracy_reward, format_reward
from mmedlite.run_folder import OtherRun, RunFolder
from mmedlite.specialists import open_specialists, panel_options
from mmedlite.store import OpinionStore


class Run(RunFolder):
    """One run: its profile, case table, store of opinions and folder.

    Args:
        folder: where results go; made if absent. profile: name or TOML file. cases: a case table to use instead of the profile's.
        seed: training seed; the profile's by default. replay: raise on an opinion that is not stored instead of asking for it.

    Raises:
        InputError: unknown profile, bad case table, missing model, cases that the profile cannot train on, an update that the
            processes of this launch cannot share, vLLM wanted and not there, a damaged adapter in the folder; before any training
            starts. OtherRun: the folder holds another run, and two would be mixed in it.
    """

    def __init__(
        self, folder: Path | str, profile: str = "tiny", cases: Path | str | None = None, seed: int | None = None, replay: bool = False
    ) -> None:
        self.profile = load_profile(profile)
        self.seed = self.profile.seed if seed is None else seed
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed {self.seed} is below 0 or too large", "--seed", "write a whole number from 0 to 4294967295")
        check_machine(self.profile)
        self.replay, self.own_cases = replay, cases is None
        self.table = self._read_cases(cases)
        self.processor = load_processor(checkpoint := resolve(self.profile.policy), self.profile.max_pixels)
        self.store = OpinionStore(Path(folder) / "opinions", shipped=OpinionStore(self.opinions))
        policy = weights_sha256(checkpoint)  # a missing one is told now, before anything is trained
        self.specialists = open_specialists(self.profile)
        self.asked, self._panels = 0, dict[tuple[Any, ...], np.ndarray]()  # opinions asked now because they were not stored
        super().__init__(folder, {
            "profile": self.profile.name, "config_sha256": self.profile.sha256(), "seed": self.seed, "code": code_sha256(),
            "cases_sha256": self.table.sha256, "policy": policy, "specialists": asdict(self.specialists.form),
        })  # fmt: skip
        self._check_cases()
        check_room(checkpoint, self.profile.dtype)
        self.claim()
        for adapter in sorted((self.folder / "adapters").rglob("adapter_model.safetensors")):
            check_adapter(adapter)
        self.save_json("run.json", {**self.facts, "started": int(time.time())})

    def _read_cases(self, cases: Path | str | None) -> CaseTable:
        if cases:
            return read_table(cases)
        folder = ROOT / "data" / self.profile.source
        name = f"data_prep.{self.profile.source}"
        known = self.profile.source.isidentifier() and importlib.util.find_spec(name)
        source = importlib.import_module(name) if known else None
        if source is None or not hasattr(source, "recipe_sha256"):  # a source that needs files of its own
            what = f"the kit cannot draw the cases of source '{self.profile.source}'"
            fix = "build them as the first lines of the profile say, or name a case table with --cases"
            raise InputError(what, f"profile {self.profile.name}, field source", fix)
        card = json.loads((folder / "card.json").read_text(encoding="utf-8")) if (folder / "card.json").exists() else {}
        if card.get("recipe_sha256") != source.recipe_sha256():  # absent, cut short, or drawn by older code
            self._draw_cases(folder)
        table = read_table(folder, check_images=False)  # checked when it was built
        if not all((table.path.parent / name).is_file() for case in table for name in case.images):
            self._draw_cases(folder)  # a picture was deleted
        return table

    def _draw_cases(self, folder: Path) -> None:
        with contextlib.redirect_stdout(sys.stderr):  # a notebook compares its stdout
            importlib.import_module("data_prep.__main__").main([self.profile.source, "--out", str(folder)])

    def _check_cases(self) -> None:
        """InputError where these cases cannot serve this profile. Known before any training but for the true size of the buckets,
        which depends on the routes: it is taken from the reference run where that saw the same cases, else no bucket is held for empty."""
        file, per_step = str(self.table.path), self.profile.grpo.prompts_per_step
        for split in ("train", "validation", "test"):
            if not self.cases(split):
                raise InputError(f"no case of the split '{split}'", f"{file}, field split", "move some cases to that split")
        for split in ("train", "test"):
            if not any(c.specialty for c in self.cases(split)):
                what = f"no {split} case names a specialty, so triage has nothing to learn from"
                raise InputError(what, f"{file}, field specialty", "name the department of at least some cases")
        n, shares = len(self.cases("train")), self.reference_results().get("panel", {})
        for panel in self.profile.panels:
            for stage in self.profile.attending.recipe:
                size = n * min(1.0, sum(shares.get(panel, {}).get(b, 1.0) for b in stage.buckets))
                if size < per_step:
                    what = f"stage '{stage.name}' has about {size:.3g} cases on the {panel} panel, fewer than one update of {per_step} prompts"
                    where = f"profile {self.profile.name}, field grpo.prompts_per_step"
                    raise InputError(what, where, "lower it, merge stages in the profile, or bring more cases")

    # Policies
    def policy(self, adapter: str | None = None) -> Any:
        """The policy with a named adapter ("triage", "diverse/hard", ...) of this run or the reference run; None: untrained."""
        model = load_policy(self.profile.policy, self.profile.dtype)
        if adapter is None:
            return model
        return load_adapter(model, self.adapter(adapter))

    def fresh(self) -> Any:
        """The policy with a new trainable adapter, drawn from the run's seed."""
        torch.manual_seed(self.seed)
        return new_adapter(load_policy(self.profile.policy, self.profile.dtype), self.profile.lora)

    def _store_training(self, model: Any, name: str, log: Sequence[Any], plan: str = "") -> None:
        model.peft_config["default"].base_model_name_or_path = public_name(self.profile.policy)
        (folder := self.folder / "adapters" / name).joinpath("made_from.json").unlink(missing_ok=True)
        model.save_pretrained(folder, selected_adapters=["default"])
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty card, with a path of this machine; ours: model_card
        self.save_json(f"logs/{name}.json", log)
        self.save_json(f"adapters/{name}/made_from.json", {**self.facts, "plan": plan})  # last: it says that all of it is there

    # Triage
    def train_triage(self, name: str = "triage", rewards: Sequence[Reward] = (format_reward, accuracy_reward)) -> Any:
        """Train the triage doctor on the training cases; stores adapter and log; returns the model. One trained so before is read."""
        plan = hashlib.sha256(json.dumps([r.__name__ for r in rewards]).encode()).hexdigest()
        if self._made_by(done := self.folder / "adapters" / name, plan):
            return load_adapter(load_policy(self.profile.policy, self.profile.dtype), done, trainable=True)
        cases = self.table.split("train")[: self.profile.triage.cases or None]
        model = self.fresh()
        out = self.folder / "rollouts" / name
        log = triage.train_triage(model, self.processor, self.table, cases, self.profile, out, self.seed, rewards)
        if name == "triage":  # routes found before came from the reference's triage doctor
            shutil.rmtree(self.folder / "routes", ignore_errors=True)
        self._store_training(model, name, log, plan)
        return model

    def routes(self, split: str) -> list[str]:
        """Department of each case of a split by the run's triage doctor, else the reference's, else (before notebook 02, on a policy of
        one's own) the untrained policy; Radiologist where it names none."""
        cases, known = self.table.split(split), self.known_routes(split)
        if not all(c.case_id in known for c in cases):
            doctor = merged(self.policy("triage")) if self.find_adapter("triage") else self.policy()
            found = triage.route(doctor, self.processor, self.table, cases, self.profile)
            self.save_json(f"routes/{split}.json", known := {c.case_id: r for c, r in zip(cases, found, strict=True)})
        return [known[c.case_id] or "Radiologist" for c in cases]

    # Panels
    def cases(self, split: str) -> list[Case]:
        """The cases of a split; test and shifted are cut to the profile's ``eval_cases``."""
        cases = self.table.split(split)
        return cases[: self.profile.eval_cases or None] if split in ("test", "shifted") else cases

    def panel(self, split: str, name: str, redraw: bool = False) -> np.ndarray:
        """The panel's options for a split: (n, 3) int, -1 for no answer; read from the store once, as long as the routes stay."""
        departments = self.routes(split)[: len(cases := self.cases(split))]
        if (key := (split, name, redraw, *departments)) not in self._panels:
            self._panels[key] = self.panel_for(cases, departments, name, redraw)
        return self._panels[key].copy()

    def panel_for(self, cases: Sequence[Case], departments: Sequence[str], name: str, redraw: bool = False) -> np.ndarray:
        options, asked = panel_options(cases, departments, name, self.table, self.store, self.specialists, redraw, self.replay)
        self.asked += asked
        return options

    # Attending
    def train_attending(
        self, panel: str, stages: Sequence[Stage], name: str, with_panel: bool = True,
        rewards: Sequence[Reward] = (format_reward, accuracy_reward), learning_rate: float | None = None, redraw: bool = False,
    ) -> Any:  # fmt: skip
        """Train the stages one after the other; stores an adapter and a log a stage (``<name>/<stage>``); returns the model.

        ``with_panel`` False hides the panel from the prompt; ``redraw`` trains on the second draw of the panel.

        Raises:
            InputError: a stage has fewer cases than one update; before any training.
        """
        cases, options = self.cases("train"), self.panel("train", panel, redraw)
        buckets = bucket(options, np.array([c.answer for c in cases]))
        for stage in stages:  # a stage that cannot be trained is told before any is
            stage_order(stage, buckets, self.profile.grpo.prompts_per_step, self.seed)
        departments, model, plan = self.routes("train"), self.fresh(), ""
        settings = [learning_rate or self.profile.grpo.learning_rate, with_panel, redraw, [r.__name__ for r in rewards]]
        for stage in stages:
            # An adapter of another recipe, seed or code is trained again; one of this plan is taken up after a stop.
            plan = hashlib.sha256(json.dumps([plan, asdict(stage), *settings]).encode()).hexdigest()
            done = self.folder / "adapters" / name / stage.name
            if self._made_by(done, plan):
                model = load_adapter(load_policy(self.profile.policy, self.profile.dtype), done, trainable=True)
                continue
            log = attending.train_stage(model, self.processor, self.table, cases, departments, options, stage, self.profile,
                                        self.folder / "rollouts" / name, self.seed, with_panel, rewards, learning_rate)  # fmt: skip
            self._store_training(model, f"{name}/{stage.name}", log, plan)
        return model

    def _made_by(self, adapter: Path, plan: str) -> bool:
        """Is this adapter the outcome of that plan, with this run's profile, seed, code and cases?"""
        file = adapter / "made_from.json"
        made = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        return made == no_nan({**self.facts, "plan": plan})

    def stages_that_fit(self, panel: str, stages: Sequence[Stage]) -> list[Stage]:
        """The stages that can be trained: all of them on the profile's own cases; on others those that hold at least one update.

        Raises:
            InputError: none of them can be trained.
        """
        if self.own_cases:  # the profile was written for them: a stage that does not fit is a mistake, told when training begins
            return list(stages)
        buckets = bucket(self.panel("train", panel), np.array([c.answer for c in self.cases("train")]))
        found, told = [], []
        for stage in stages:
            try:
                stage_order(stage, buckets, self.profile.grpo.prompts_per_step, self.seed)
                found.append(stage)
            except InputError as error:
                told.append(error)
        if not found:
            raise told[0]
        return found

    def train_sft(self, panel: str, steps: int) -> Any:
        """The SFT baseline on the same prompts and cases."""
        model = self.fresh()
        cases, departments, options = self.cases("train"), self.routes("train"), self.panel("train", panel)
        rate = self.profile.grpo.learning_rate
        losses = attending.train_sft(model, self.processor, self.table, cases, departments, options, self.profile, steps, self.seed, rate)
        self._store_training(model, f"{panel}/sft", losses)
        return model

    def answer(
        self, model: Any, system: str, split: str, panel: str,
        shown: np.ndarray | None = None, alone: bool = False, temperature: float = 0.0,
    ) -> pd.DataFrame:  # fmt: skip
        """Answers of a policy on a split as Result rows, greedy at temperature 0. ``alone`` hides the panel; ``shown`` replaces it."""
        cases, options = self.cases(split), self.panel(split, panel)
        departments = self.routes(split)[: len(cases)]
        visible = None if alone else options if shown is None else shown
        texts = attending.answer(
            model, self.processor, self.table, cases, departments, visible, self.profile, system, temperature, self.seed
        )  # fmt: skip
        return self.score(system, split, panel, texts)

    def score(self, system: str, split: str, panel: str, texts: Sequence[str]) -> pd.DataFrame:
        """Texts scored strictly into Result rows."""
        cases, options, departments = self.cases(split), self.panel(split, panel), self.routes(split)
        rows = []
        for case, votes, text, department in zip(cases, options.tolist(), texts, departments, strict=False):
            parsed = parse_strict(text, case.options)
            rows.append(result_row(case, votes, parsed.option, system=system, seed=self.seed, panel=panel, department=department,
                                   text=text, reason=parsed.reason))  # fmt: skip
        return pd.DataFrame(rows)

    def choices(self, system: str, split: str, panel: str, options: Sequence[int]) -> pd.DataFrame:
        """Result rows of a system that picks options without writing text (a vote, a classifier)."""
        cases, votes, departments = self.cases(split), self.panel(split, panel), self.routes(split)
        return pd.DataFrame([
            result_row(c, v, int(o), system=system, seed=self.seed, panel=panel, department=d)
            for c, v, o, d in zip(cases, votes.tolist(), options, departments, strict=False)
        ])  # fmt: skip


def open_run() -> Run:
    """The run of a notebook: folder, profile and cases from the environment (set by ``make demo``), else a scratch run (older ones stay)."""
    settings = (os.environ.get("MMEDLITE_PROFILE", "tiny"), os.environ.get("MMEDLITE_CASES") or None)
    if folder := os.environ.get("MMEDLITE_RUN"):
        return Run(folder, *settings)
    scratch = ROOT / "runs" / "notebooks"
    try:
        return Run(scratch, *settings)
    except OtherRun as error:
        old = scratch.rename(f"{scratch}-{time.strftime('%Y%m%d-%H%M%S')}")
        print(f"{error}\nIt is kept as runs/{old.name}; a new scratch run begins.", file=sys.stderr)
        if (old / "opinions").exists():  # an answer belongs to its request, not to the code that asked
            shutil.copytree(old / "opinions", scratch / "opinions")
        return Run(scratch, *settings)

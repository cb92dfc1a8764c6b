"""Local specialists: LoRA adapters on a second tiny base. Their own views of a case and their blind spots are simulated."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from mmedlite.asks import Ask, Estimate, Form, Reply, batch_seed
from mmedlite.cases import CaseTable
from mmedlite.checkpoints import resolve
from mmedlite.models import Answer, generate, load_adapter, load_policy, load_processor
from mmedlite.profiles import InputError
from mmedlite.prompts import specialist_prompt
from mmedlite.provenance import weights_sha256

TEMPERATURE = 1.0
MAX_NEW_TOKENS = 20
BATCH = 256


def checked_revision(folder: Path) -> str:
    """The revision of the specialists in ``folder``, if its weights are the ones it names; checked before any training."""
    mend = "restore the folder from git, or run `make artifacts`"
    for file in sorted(folder.rglob("*.safetensors")):
        try:
            safe_open(file, "pt")
        except Exception as error:
            raise InputError(f"damaged weights: {error}", str(file), mend) from error
    try:
        revision = str(json.loads((folder / "revision.json").read_text(encoding="utf-8"))["revision"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"no revision of the specialists: {error}", str(folder / "revision.json"), mend) from error
    if weights_sha256(folder) != revision:
        raise InputError("the specialists' weights are not those of revision.json", str(folder), mend)
    return revision


class LocalSpecialists:
    """LoRA specialists of a folder ``{base/, adapters/<Department>-<0..2>/, revision.json}``; loaded at the first question."""

    def __init__(self, folder: str | Path, panels: Mapping[str, Sequence[str]]) -> None:
        self.folder = resolve(folder)
        sampling = {"temperature": TEMPERATURE, "max_tokens": MAX_NEW_TOKENS}
        self.form = Form("local", panels, {"*": {"revision": checked_revision(self.folder), "sampling": sampling}})
        self._model: Any = None
        self._processor: Any = None

    def estimate(self, asks: Sequence[Ask]) -> Estimate | None:
        """Asking is free."""
        return None

    def answers(self, table: CaseTable, asks: Sequence[Ask]) -> Generator[list[tuple[Ask, Reply]], None, None]:
        """Batches of one adapter each."""
        groups: dict[str, list[Ask]] = {}
        for ask in asks:
            groups.setdefault(self.form.model(ask), []).append(ask)
        for adapter, group in groups.items():
            for batch in (group[i : i + BATCH] for i in range(0, len(group), BATCH)):
                start, seed = time.perf_counter(), batch_seed(batch)
                answers = self.generate(adapter, table, batch, seed)
                latency = round((time.perf_counter() - start) / len(batch), 4)
                ends = ["stop" if a.ended else "length" for a in answers]
                replies = [Reply(a.text, e, latency_s=latency, served_model=adapter, seed=seed) for a, e in zip(answers, ends, strict=True)]
                yield list(zip(batch, replies, strict=True))

    def generate(self, adapter: str, table: CaseTable, asks: Sequence[Ask], seed: int) -> list[Answer]:
        """Sampled answers of one adapter to a batch of asks."""
        if self._model is None:
            self._processor = load_processor(self.folder / "base")
            self._model = load_adapter(load_policy(self.folder / "base"), self.folder / "adapters" / adapter, adapter)
        if adapter not in self._model.peft_config:
            load_adapter(self._model, self.folder / "adapters" / adapter, adapter)
        self._model.set_adapter(adapter)
        pictures = [table.open_image(a.case, self.form.view(a)) for a in asks]
        prompts = [specialist_prompt(a.case, a.department) for a in asks]
        return generate(self._model, self._processor, pictures, prompts, MAX_NEW_TOKENS, TEMPERATURE, seed)

"""Frozen specialists: three answers of the routed department, asked once and stored (paper section 3.2).

Two panels. *diverse*: three different specialists of the department, each with its own view of the case. *paper_like*: three
samples of one specialist at T = 1, as three calls to one model. Samples 0-2 are the panel, samples 3-5 serve the redraw.
The local specialists are LoRA adapters on a second tiny base; their own views and blind spots are simulated.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from tqdm import tqdm

from mmedlite.answers import parse_lenient
from mmedlite.cases import Case, CaseTable
from mmedlite.models import generate, load_adapter, load_policy, load_processor, resolve
from mmedlite.profiles import InputError
from mmedlite.prompts import specialist_prompt
from mmedlite.provenance import weights_sha256
from mmedlite.store import MissingOpinion, OpinionStore, request_key

PANELS = ("diverse", "paper_like")
PANEL_SIZE = 3
TEMPERATURE = 1.0
MAX_NEW_TOKENS = 20
BATCH = 256


@dataclass(frozen=True)
class Ask:
    """One wanted opinion."""

    case: Case
    department: str
    panel: str
    sample_index: int

    @property
    def doctor(self) -> int:
        """Which of the department's three specialists answers: the paper-like panel asks the first one three times."""
        return self.sample_index % PANEL_SIZE if self.panel == "diverse" else 0

    @property
    def view(self) -> int:
        """The specialist's own view of the case, where the case has views; else its only picture."""
        return 1 + self.doctor if len(self.case.images) > 1 + self.doctor else 0

    @property
    def adapter(self) -> str:
        return f"{self.department}-{self.doctor}"


def _request(ask: Ask, revision: str) -> dict[str, Any]:
    return {
        "model": ask.adapter, "revision": revision, "prompt": specialist_prompt(ask.case, ask.department),
        "images": [ask.case.image_sha256s[ask.view]], "temperature": TEMPERATURE, "max_tokens": MAX_NEW_TOKENS,
        "sample_index": ask.sample_index,
    }  # fmt: skip


def _checked_revision(folder: Path) -> str:
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

    def __init__(self, folder: str | Path) -> None:
        self.folder = resolve(folder)
        self.revision = _checked_revision(self.folder)
        self._model: Any = None
        self._processor: Any = None

    def _load(self, adapter: str) -> None:
        if self._model is None:
            self._processor = load_processor(self.folder / "base")
            self._model = load_adapter(load_policy(self.folder / "base"), self.folder / "adapters" / adapter, adapter)
        if adapter not in self._model.peft_config:
            load_adapter(self._model, self.folder / "adapters" / adapter, adapter)
        self._model.set_adapter(adapter)

    def answer(self, table: CaseTable, asks: Sequence[Ask]) -> list[str]:
        """Sampled answers of one adapter to a batch of asks (all of the same adapter)."""
        self._load(asks[0].adapter)
        # The seed comes from the whole batch of requests, so that a repeat of the same fill is bit-identical.
        seed = int(request_key({"asks": [[a.case.case_id, a.sample_index] for a in asks]})[:8], 16)
        pictures = [table.open_image(a.case, a.view) for a in asks]
        prompts = [specialist_prompt(a.case, a.department) for a in asks]
        return generate(self._model, self._processor, pictures, prompts, MAX_NEW_TOKENS, TEMPERATURE, seed)


def fetch(
    asks: Sequence[Ask], table: CaseTable, store: OpinionStore, specialists: LocalSpecialists, replay: bool = False
) -> tuple[list[dict[str, Any]], int]:
    """Opinions for ``asks``, in order, from the store; those missing are asked of the local specialists and stored.

    Returns:
        (opinions, number asked now).

    Raises:
        MissingOpinion: with ``replay`` and an opinion that is not in the store.
    """
    keys = [request_key(_request(a, specialists.revision)) for a in asks]
    missing = {k: a for k, a in zip(keys, asks, strict=True) if store.get(k) is None}
    if missing and replay:
        raise MissingOpinion(f"{len(missing)} opinions are not stored, the first for {next(iter(missing.values())).case.case_id}")
    groups: dict[str, list[tuple[str, Ask]]] = {}
    for key, ask in missing.items():
        groups.setdefault(ask.adapter, []).append((key, ask))
    batches = [g[i : i + BATCH] for g in groups.values() for i in range(0, len(g), BATCH)]
    for batch in tqdm(batches, desc="asking specialists", mininterval=2, disable=not batches):
        start = time.perf_counter()
        texts = specialists.answer(table, [a for _, a in batch])
        latency = (time.perf_counter() - start) / len(batch)
        rows = []
        for (key, ask), text in zip(batch, texts, strict=True):
            parsed = parse_lenient(text, ask.case.options)
            rows.append({
                "key": key, "case_id": ask.case.case_id, "department": ask.department, "panel": ask.panel, "source": "local",
                "model": ask.adapter, "revision": specialists.revision, "served_model": ask.adapter,
                "sample_index": ask.sample_index, "seed": ask.sample_index,
                "request": json.dumps(_request(ask, specialists.revision), sort_keys=True), "response": text,
                "option": parsed.option, "reason": parsed.reason, "finish_reason": "stop", "usage": len(text.split()),
                "latency_s": round(latency, 4), "time": int(time.time()),
            })  # fmt: skip
        store.add(rows)
    return [store.rows[k] for k in keys], len(missing)


def panel_options(
    cases: Sequence[Case], departments: Sequence[str], panel: str, table: CaseTable, store: OpinionStore,
    specialists: LocalSpecialists, redraw: bool = False, replay: bool = False,
) -> tuple[np.ndarray, int]:  # fmt: skip
    """The panel's parsed options of each case, (n, 3) int, -1 where a specialist gave no answer; and how many were asked now.

    ``redraw`` takes samples 3-5, an independent draw from the same specialists.
    """
    first = PANEL_SIZE if redraw else 0
    asks = [Ask(c, d, panel, first + i) for c, d in zip(cases, departments, strict=True) for i in range(PANEL_SIZE)]
    opinions, asked = fetch(asks, table, store, specialists, replay)
    options = [-1 if o["option"] is None else o["option"] for o in opinions]
    return np.array(options, int).reshape(len(cases), PANEL_SIZE), asked

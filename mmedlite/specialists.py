"""Frozen specialists: three answers of the routed department, asked once and stored (paper section 3.2).

A panel names who gives each of its three answers. In the tiny world *diverse* has three different specialists of the department, each
with its own view of the case, and *paper_like* three samples of one specialist at T = 1, as three calls to one model.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from mmedlite.answers import parse_lenient
from mmedlite.asks import FINAL, PANEL_SIZE, Ask, Estimate, Form, Reply, Specialists
from mmedlite.cases import Case, CaseTable
from mmedlite.opinions import MissingOpinion, request_key
from mmedlite.profiles import InputError, Profile
from mmedlite.store import OpinionStore

ROOM = 16 * 1024  # bytes of disk space for one answer, before any is paid for


class Unanswered(InputError):
    """Some questions got no answer in time; the answers to the others are stored."""


def open_specialists(profile: Profile) -> Specialists:
    """The source of answers that a profile names.

    Raises:
        InputError: missing or damaged specialists, an address that cannot be used. A missing key is told at the first question.
    """
    if profile.endpoint:
        from mmedlite.endpoint import EndpointSpecialists  # openai takes half a second to import

        return EndpointSpecialists(profile.endpoint, profile.panels)
    if profile.simulated:
        from mmedlite.simulated import SimulatedSpecialists

        dials = profile.simulated
        return SimulatedSpecialists(list(profile.panels), dials.accuracy, dials.correlation, dials.corrupted)
    from mmedlite.local_specialists import LocalSpecialists  # needs torch

    return LocalSpecialists(profile.specialists, profile.panels)


def by_key(asks: Sequence[Ask], form: Form) -> dict[str, Ask]:
    """The asks by the keys of their requests, each request once."""
    return {request_key(form.request(a)): a for a in asks}


def missing(wanted: Mapping[str, Ask], store: OpinionStore) -> dict[str, Ask]:
    """Those of the asks by key that are neither answered nor finally refused."""
    return {k: a for k, a in wanted.items() if k not in store and (store.failure(k) or {}).get("reason") not in FINAL}


def fetch(
    asks: Sequence[Ask], table: CaseTable, store: OpinionStore, specialists: Specialists, replay: bool = False
) -> tuple[list[dict[str, Any]], int]:
    """Opinions for ``asks``, in order, from the store; those missing are asked and stored as they come.

    Where the model gave no answer (cut short, withheld, empty) the opinion is its failure: option None, with the reason.

    Returns:
        (opinions, number asked now).

    Raises:
        MissingOpinion: with ``replay`` and an opinion that is not in the store. Nothing is asked.
        Unanswered: no answer within the deadline; ask again. InputError: budget, key, disk space; see ``endpoint`` and ``store``.
    """
    if any(store.unsaved.values()):  # for want of disk space, by an earlier call
        store.add([])
    keys = [request_key(specialists.form.request(a)) for a in asks]
    wanted = missing(dict(zip(keys, asks, strict=True)), store)
    if wanted and replay:
        raise MissingOpinion(f"{len(wanted)} opinions are not stored, the first for {next(iter(wanted.values())).case.case_id}")
    asked = 0
    if wanted:
        with store.filling():
            wanted = missing(wanted, store)  # another process may have asked meanwhile
            if asked := len(wanted):
                _fill(wanted, table, store, specialists)
    return [store.get(k) or store.failure(k) or {} for k in keys], asked


def _fill(wanted: Mapping[str, Ask], table: CaseTable, store: OpinionStore, specialists: Specialists) -> None:
    keys, failed = {id(a): k for k, a in wanted.items()}, Counter[str]()
    if estimate := specialists.estimate(list(wanted.values())):
        print(told(estimate), file=sys.stderr)
        if (free := shutil.disk_usage(store.folder).free) < ROOM * len(wanted):
            what = f"{free / 2**20:.0f} MiB are free, for {len(wanted)} answers of up to {ROOM // 1024} KiB; nothing was asked"
            raise InputError(what, str(store.folder), "free some disk space")
    with tqdm(total=len(wanted), desc="asking specialists", mininterval=2) as bar:
        parts = specialists.answers(table, list(wanted.values()))
        part = next(parts, None)
        while part is not None:
            rows = [_row(keys[id(ask)], ask, reply, specialists.form) for ask, reply in part]
            failed.update(r["reason"] for r in rows if "message" in r and r["reason"] not in FINAL)
            bar.update(len(part))
            try:
                try:
                    store.add([r for r in rows if "message" not in r])
                finally:
                    store.add_failures([r for r in rows if "message" in r])
                part = next(parts, None)
            except InputError as error:  # a full disk: the store keeps them in memory, and the source brings what is under way
                part = parts.throw(error)
    if failed:
        kinds = ", ".join(f"{n} x {kind}" for kind, n in failed.most_common())
        what = f"{failed.total()} of {len(wanted)} questions got no answer ({kinds}); the rest is stored"
        raise Unanswered(what, str(store.folder), "run the same command or cell again: it asks only what is missing")


def _row(key: str, ask: Ask, reply: Reply, form: Form) -> dict[str, Any]:
    """An opinion, or where there is no answer a failure, which has a message."""
    row = {
        "key": key, "case_id": ask.case.case_id, "department": ask.department, "panel": ask.panel, "source": form.source,
        "request": form.request(ask), "response": reply.text, "raw": reply.raw, "option": None, "reason": reply.unfit(),
        "finish_reason": reply.finish_reason, "usage": reply.usage, "latency_s": float(reply.latency_s), "served_model": reply.served_model,
        "seed": reply.seed, "time": int(time.time()),
    }  # fmt: skip
    if row["reason"] is not None:
        return {**row, "message": reply.message}
    parsed = parse_lenient(reply.text, ask.case.options)
    return {**row, "option": parsed.option, "reason": parsed.reason}


def told(estimate: Estimate) -> str:
    """An estimate in words."""
    return (
        f"{estimate.requests:,} requests, at most {estimate.input_tokens:,} tokens in and {estimate.output_tokens:,} out, "
        f"${estimate.dollars:,.2f}, about {estimate.seconds / 60:.1f} minutes; retries come on top, within the budget"
    )


def panel_asks(cases: Sequence[Case], departments: Sequence[str], panel: str, redraw: bool = False) -> list[Ask]:
    """The three questions a case of a panel; ``redraw`` takes samples 3-5, an independent draw from the same doctors."""
    first = PANEL_SIZE if redraw else 0
    return [Ask(c, d, panel, first + i) for c, d in zip(cases, departments, strict=True) for i in range(PANEL_SIZE)]


def panel_options(
    cases: Sequence[Case], departments: Sequence[str], panel: str, table: CaseTable, store: OpinionStore,
    specialists: Specialists, redraw: bool = False, replay: bool = False,
) -> tuple[np.ndarray, int]:  # fmt: skip
    """The panel's parsed options of each case, (n, 3) int, -1 where a specialist gave no answer; and how many were asked now."""
    opinions, asked = fetch(panel_asks(cases, departments, panel, redraw), table, store, specialists, replay)
    options = [-1 if o["option"] is None else o["option"] for o in opinions]
    return np.array(options, int).reshape(len(cases), PANEL_SIZE), asked

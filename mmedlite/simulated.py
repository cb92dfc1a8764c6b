"""Dial-a-panel: simulated specialists of a set accuracy and error correlation, with a share of corrupted answers. No model is asked."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence

import numpy as np

from mmedlite.asks import Ask, Estimate, Form, Reply
from mmedlite.cases import CaseTable


class SimulatedSpecialists:
    """With probability ``correlation`` all answers to a case are one draw, else each is a draw of its own.

    The errors of any two answers then have that correlation (phi), and the buckets are those of ``widgets.bucket_shares``.

    Args:
        panels: names of the panels; their doctors are alike. accuracy: share of right answers before corruption. correlation: of the
            errors, 0 to 1. corrupted: share of answers that are made wrong whatever they were.
    """

    def __init__(self, panels: Sequence[str], accuracy: float, correlation: float, corrupted: float = 0.0) -> None:
        self.accuracy, self.correlation, self.corrupted = accuracy, correlation, corrupted
        dials = {"accuracy": accuracy, "correlation": correlation, "corrupted": corrupted}
        self.form = Form("simulated", dict.fromkeys(panels, ("simulated",) * 3), {"*": {"revision": "1", "sampling": dials}})

    def answers(self, table: CaseTable, asks: Sequence[Ask]) -> Generator[list[tuple[Ask, Reply]], None, None]:
        """All answers at once; each is a function of case, department and sample index."""
        yield [(ask, Reply(f"<answer>{ask.case.options[self._option(ask)]}</answer>", served_model="simulated")) for ask in asks]

    def estimate(self, asks: Sequence[Ask]) -> Estimate | None:
        """Asking is free."""
        return None

    def _option(self, ask: Ask) -> int:
        shared, own = (_draws(ask, part) for part in ("shared", f"own {ask.sample_index}"))
        answer, n = ask.case.answer, len(ask.case.options)
        use = shared if shared[0] < self.correlation else own
        wrong = (answer + 1 + int(use[2] * (n - 1))) % n
        option = answer if use[1] < self.accuracy else wrong
        return (answer + 1 + int(own[4] * (n - 1))) % n if own[3] < self.corrupted else option


def _draws(ask: Ask, part: str) -> np.ndarray:
    """Five uniform numbers, the same for the same question on any machine: (5,) float."""
    name = f"{ask.case.case_id} {ask.department} {ask.sample_index // 3} {part}"
    digest = hashlib.sha256(name.encode()).digest()
    return np.frombuffer(digest[:20], dtype=">u4") / 2**32

"""What a run would ask of its specialists and what that would cost: nothing is asked or written, no policy is loaded or downloaded."""

from __future__ import annotations

from pathlib import Path

from mmedlite.cases import SPLITS
from mmedlite.profiles import load_profile
from mmedlite.run import Run
from mmedlite.run_folder import RunFolder
from mmedlite.specialists import by_key, missing, open_specialists, panel_asks, told
from mmedlite.store import OpinionStore


class DryRun(Run):
    """The cases, the store and the specialists of a run, without its policy."""

    def __init__(self, folder: Path | str, profile: str, cases: str | None) -> None:
        self.profile = load_profile(profile)
        self.table = self._read_cases(cases)
        self.store = OpinionStore(Path(folder) / "opinions", shipped=OpinionStore(self.opinions))
        self.specialists = open_specialists(self.profile)
        made_by = {"profile": self.profile.name, "config_sha256": self.profile.sha256(), "cases_sha256": self.table.sha256}
        RunFolder.__init__(self, folder, made_by)
        if (self.folder / "run.json").exists():
            self.claim()  # of another run the routes say nothing
        self._check_cases()


def dry_run(this: Run) -> int:
    """Tell what the panels of a run would ask and what it would cost, by the routes that are stored, else by each case's own specialty."""
    draws = [(s, redraw) for s in SPLITS if this.cases(s) for redraw in (False, True) if s == "train" or not redraw]  # as evaluation_step
    known = {s: this.known_routes(s) for s, _ in draws}
    sent = {s: [known[s].get(c.case_id, c.specialty) or "Radiologist" for c in this.cases(s)] for s in known}
    asks = [a for p in this.profile.panels for s, redraw in draws for a in panel_asks(this.cases(s), sent[s], p, redraw)]
    every = by_key(asks, this.specialists.form)
    wanted = list(missing(every, this.store).values())
    estimate = this.specialists.estimate(wanted)
    print(f"{len(every):,} different questions, {len(wanted):,} not answered yet; {told(estimate) if estimate else 'asking is free'}")
    if endpoint := this.profile.endpoint:
        limits = {n: getattr(endpoint, n) for n in ("max_requests", "max_tokens", "max_dollars")}
        print(f"budget of one process (0: no limit): {limits}")
    return 0

"""Does a policy know when to trust the panel? The probability that it gives the majority's option, before and after training.

``python -m figures.trust`` scores the options of the test cases of clinic 0 after each policy's stored reasoning and writes
``figures/data/trust.parquet``: a row a panel and case, a column a policy. Nothing is trained.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from figures._wide import FACTS
from figures.artifacts import SEEDS, open_seed
from mmedlite.attending import option_scores
from mmedlite.evidence import DATA
from mmedlite.models import merged
from mmedlite.run import Run
from mmedlite.side_by_side import side_by_side
from mmedlite.verify import sha256

OUT = DATA / "trust.parquet"


def follow(run: Run, panel: str) -> pd.DataFrame:
    """Probability of the majority's option under both policies, nan where there is no majority."""
    rows, cases, said = run.rows(f"{panel}/test/trained"), run.cases("test"), run.panel("test", panel)
    frame = rows[FACTS].assign(options=[json.dumps(c.options) for c in cases])
    trained = merged(run.policy(f"{panel}/{run.profile.attending.recipe[-1].name}"))
    for column, policy, system in (("p_untrained", run.policy(), "untrained_panel"), ("p_trained", trained, "trained")):
        texts = run.rows(f"{panel}/test/{system}")["text"].tolist()
        scores = option_scores(policy, run.processor, run.table, cases, run.routes("test"), said, texts, run.profile)
        given = [s - np.logaddexp.reduce(s) for s in scores]
        frame[column] = [float(np.exp(g[v])) if v >= 0 else np.nan for g, v in zip(given, frame["panel_vote"], strict=True)]
    return frame


def main() -> None:
    """Score and write the table."""
    run = open_seed(SEEDS[0])
    frame = pd.concat(side_by_side(run, [(follow, panel) for panel in run.profile.panels]), ignore_index=True)
    frame.attrs = {"seed": run.seed, "code": run.facts["code"], "script": sha256(Path(__file__)), "cases_sha256": run.table.sha256}
    frame.to_parquet(OUT, compression="zstd", index=False)


if __name__ == "__main__":
    main()

"""Runs that went wrong, from their stored logs and answers: ``docs/went_wrong.md``. What each teaches is said by hand, every number is read."""

from __future__ import annotations

import json
from statistics import fmean

from mmedlite.evaluation import signed, trust_plane
from mmedlite.health import verdicts
from mmedlite.profiles import ROOT
from mmedlite.run_folder import RunFolder
from mmedlite.summary import difference

PAGE = ROOT / "docs" / "went_wrong.md"
RUNS = {  # folder of the logs: panel, rows on the test cases, title, what it teaches
    "diverse": (
        "diverse", "trained", "The recommended recipe, for comparison",
        "This one did not go wrong. Accuracy is that of the sampled training cases, so it falls where a stage brings harder cases.",
    ),
    "random_reward": (
        "diverse", "random_reward", "A coin for a reward",
        "Nothing in the reward depends on the answer, and the policy moves all the same, further than in any good run: moving is not learning.",
    ),
    "diverse_paper_schedule": (
        "diverse", "paper_schedule", "One bucket a stage, diverse panel",
        "Reward rises in the last stage and the policy gets worse. Every case of that stage has a wrong panel, so contradiction is paid. No "
        "signal of the training shows it; the place on the trust plane does: x falls, y rises.",
    ),
    "paper_like_paper_schedule": (
        "paper_like", "paper_schedule", "The same, paper-like panel",
        "The more the errors correlate, the more cases are hard, and the further it slides.",
    ),
    "entropy_off": (
        "diverse", "entropy_off", "The entropy bonus left out",
        "Left out by mistake it would not be noticed: at these coefficients its gradient is small beside the policy term's.",
    ),
}  # fmt: skip
SIGNALS = ("accuracy", "kl", "entropy", "equal_groups")


def _stages(reference: RunFolder, name: str) -> list[str]:
    """One line a stage: signals in its first and last fifth, and what the health check says."""
    lines = []
    for stage in ("easy", "medium", "hard"):
        log = reference.log(f"{name}/{stage}")
        part = max(1, len(log) // 5)
        ends = [f"{fmean(r[k] for r in log[:part]):.3g} -> {fmean(r[k] for r in log[-part:]):.3g}" for k in SIGNALS]
        found = [f"{v.signal}: {v.state}, {v.reason}" for v in verdicts(log) if v.state != "normal"]
        lines.append(f"| {stage} | {len(log)} | {' | '.join(ends)} | {'; '.join(found) or 'all normal'} |")
    return lines


def page() -> str:
    """The page as Markdown."""
    facts = json.loads((RunFolder.reference / "run.json").read_text(encoding="utf-8"))
    reference = RunFolder(RunFolder.reference, facts)
    lines = [
        "# Runs that went wrong, with their logs\n",
        f"Written by `make figures` from the stored runs (phantom clinic, simulated; training seed {facts['seed']}). Each signal: mean of the "
        "first and of the last fifth of a stage. The logs lie in `artifacts/reference/logs`.",
    ]
    for name, (panel, rows, title, lesson) in RUNS.items():
        before, after = (reference.rows(f"{panel}/test/{who}") for who in ("untrained_panel", rows))
        (x, y), (x_after, y_after) = (trust_plane(part)[:2] for part in (before, after))
        head = " | ".join(s.replace("_", " ") for s in SIGNALS)
        lines += [f"\n## {title}\n", f"| stage | steps | {head} | health |", "|---|" + "---|" * (len(SIGNALS) + 2), *_stages(reference, name)]
        lines.append(
            f"\nTest accuracy minus the untrained policy's: {signed(difference(after, before))}. Place on the trust plane: ({x:.2f}, {y:.2f}) "
            f"before, ({x_after:.2f}, {y_after:.2f}) after. {lesson}"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()

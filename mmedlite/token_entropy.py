"""Real rollouts, token by token: where is a policy undecided, before a stage and after it?

The entropy bonus of Eq. 3.1 is paid for the mean of what is drawn here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image

from mmedlite.attending import prompt_of
from mmedlite.case_browser import asked
from mmedlite.models import Processor, completion_inputs
from mmedlite.plots import HATCHES, Drawing, draw
from mmedlite.run import Run
from mmedlite.run_folder import groups_of
from mmedlite.widgets import explore

SHOWN = 40  # tokens that a figure has room for
ROOM = 2**28  # log-probabilities kept of a policy: 1 GiB


class Scored(NamedTuple):
    """One group of rollouts under one policy: B rollouts of at most T tokens, a vocabulary of V."""

    tokens: list[list[str]]  # of each rollout, the end token last
    mask: np.ndarray  # (B, T) bool
    sampled: np.ndarray  # (B, T) float, log-probability of the token that was sampled, nats
    log_probs: np.ndarray  # (B, T, V) float, nats

    def means(self, values: np.ndarray) -> np.ndarray:
        """Mean of (B, T) values over the tokens of each rollout: (B,)."""
        return np.asarray((values * self.mask).sum(1) / self.mask.sum(1))


@torch.no_grad()
def score(model: Any, processor: Processor, picture: Image.Image, prompt: str, texts: Sequence[str], lengths: Sequence[int]) -> Scored:
    """Run a policy over answers to one prompt and keep the whole distribution at each of their tokens.

    Args:
        texts: B answers. lengths: tokens of each as it was sampled, the end token with them; one that was cut off has none.
    """
    tokenizer = processor.tokenizer
    ended = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) < n for text, n in zip(texts, lengths, strict=True)]
    whole = [text + tokenizer.eos_token * end for text, end in zip(texts, ended, strict=True)]
    inputs, tails = completion_inputs(processor, [picture] * len(texts), [prompt] * len(texts), [""] * len(texts), whole)
    keep = tails["input_ids"].shape[1]  # T
    logits = model(**{name: value.to(model.device) for name, value in inputs.items()}).logits[:, -keep - 1 : -1]
    log_probs = logits.float().log_softmax(-1).cpu()  # (B, T, V)
    ids, mask = tails["input_ids"], tails["attention_mask"].bool()
    tokens = [[tokenizer.decode(token) for token in row[real]] for row, real in zip(ids, mask, strict=True)]
    return Scored(tokens, mask.numpy(), log_probs.gather(2, ids[..., None])[..., 0].numpy(), log_probs.numpy())


def last_group(rollouts: Sequence[Mapping[str, Any]], vocabulary: int) -> pd.DataFrame:
    """Of the last update of a training, the first group in which some answers earned more than others, else its first one; of a large
    vocabulary as many of its answers as ``ROOM`` allows.

    Args:
        rollouts: rows of rollouts.jsonl, at least one. vocabulary: its size.
    """
    last = (rollouts[-1]["stage"], rollouts[-1]["step"])
    rows = pd.DataFrame([row for row in rollouts if (row["stage"], row["step"]) == last])
    groups = [group for _, group in rows.groupby(groups_of(rows))]
    chosen = next((group for group in groups if group["advantage"].abs().max() > 0), groups[0])
    return chosen.head(max(1, ROOM // (vocabulary * int(chosen["tokens"].max()))))


def look(run: Run, panel: str, group: pd.DataFrame, policies: Mapping[str, str | None]) -> dict[str, Scored]:
    """A group of rollouts under several policies; policies: title -> adapter of the run, None for the untrained one."""
    seen = asked(run, panel)[group["case_id"].iloc[0]]
    given = run.table.open_image(seen.case), prompt_of(seen.case, seen.department, seen.panel.tolist()), [*group["text"]], [*group["tokens"]]
    return {title: score(run.policy(name), run.processor, *given) for title, name in policies.items()}


def apart(group: pd.DataFrame, scored: Scored) -> float:
    """How far the log-probabilities (nats a token, mean) are from those stored with the rollouts, at most; nan where no text gives the
    tokens that were sampled, as may be after decoding."""
    same = np.array([len(tokens) == n for tokens, n in zip(scored.tokens, group["tokens"], strict=True)])
    far = np.abs(scored.means(scored.sampled) - group["logp"].to_numpy())
    return float(far[same].max(initial=0)) if same.any() else float("nan")


def terms(
    group: pd.DataFrame, before: Scored, after: Scored, entropy: Callable[..., Any], kl: Callable[..., Any], objective: Callable[..., Any]
) -> pd.DataFrame:
    """The terms of the objective (paper Eq. 2.1 and 3.1) on one group, by a learner's functions, in five places.

    Args:
        before, after: the reference and the policy. entropy, kl, objective: as the exercises of notebook 04 ask for them.
    """
    h, k = after.means(entropies(after.log_probs)), after.means(kl(after.sampled, before.sampled))  # (B,) each
    gamma, beta = group[["gamma", "beta"]].iloc[0]
    found = {
        "entropy of the reference": entropy(before.log_probs, before.mask), "entropy of the policy": entropy(after.log_probs, after.mask),
        "KL from the reference": k.mean(), "gain at ratio 1": group["advantage"].mean(), "gamma x entropy": gamma * h.mean(),
        "beta x KL": beta * k.mean(), "objective": objective(np.ones(len(h)), group["advantage"].to_numpy(), h, k, gamma, beta),
    }  # fmt: skip
    return pd.Series(found, name="nats").map("{:.5f}".format).to_frame()


def entropies(log_probs: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """(..., V) log-probabilities -> (...) entropy of the token, in nats, were it sampled at this temperature."""
    z = log_probs / temperature
    z = z - np.logaddexp.reduce(z, axis=-1, keepdims=True)
    return np.asarray(-(np.exp(z) * z).sum(-1))


def entropy_figure(looked: Mapping[str, Scored], rollout: int, temperature: float) -> tuple[Drawing, str]:
    """The entropy of each token of one rollout (1 to B) under each policy, at a sampling temperature; the first ``SHOWN`` tokens."""
    tokens = next(iter(looked.values())).tokens[rollout - 1]
    found = {title: entropies(s.log_probs[rollout - 1, : len(tokens)], temperature) for title, s in looked.items()}
    table = pd.DataFrame(found).assign(token=tokens).set_index("token")
    top = max(float(np.max(values)) for values in found.values())

    def paint(fig: Drawing) -> None:
        axes, width = fig.subplots(), 0.8 / len(found)
        for i, (title, values) in enumerate(found.items()):
            at = np.arange(min(len(values), SHOWN)) + (i - (len(found) - 1) / 2) * width
            axes.bar(at, values[:SHOWN], width, color=f"C{i}", hatch=HATCHES[i], edgecolor="white", label=f"{title}, mean {values.mean():.3f}")
        axes.set_xticks(range(min(len(tokens), SHOWN)), tokens[:SHOWN], rotation=60, ha="right", parse_math=False)
        axes.set(ylabel="entropy, nats", ylim=(0, 1.05 * max(top, 0.1)))
        fig.legend(loc="outside upper center", ncols=2)

    most = {title: int(values.argmax()) for title, values in found.items()}
    told = [f"{title}: mean {v.mean():.3f} nats, most at '{tokens[most[title]]}' ({v.max():.3f})" for title, v in found.items()]
    return draw(paint, table, (7.6, 3.2)), f"Entropy of each token of rollout {rollout}, at temperature {temperature:g}. {'; '.join(told)}."


def entropy_explorer(looked: Mapping[str, Scored]) -> None:
    """Sliders: which rollout of the group, and the temperature at which its tokens would be sampled."""
    import ipywidgets

    count = len(next(iter(looked.values())).tokens)
    rollout = ipywidgets.IntSlider(value=1, min=1, max=count, continuous_update=False)
    whole = {"description_width": "initial"}  # or the word is cut
    temperature = ipywidgets.FloatSlider(value=1.0, min=0.25, max=2.0, step=0.25, continuous_update=False, style=whole)
    explore(lambda rollout, temperature: entropy_figure(looked, rollout, temperature), rollout=rollout, temperature=temperature)

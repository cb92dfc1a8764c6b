"""The ideal reader: how much could be read from the frozen features and the panel by a classifier that is told the answers?

It bounds what training the attending can bring (the design's headroom). Torch is imported when it is fitted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

if TYPE_CHECKING:
    import torch


def fit_ideal_reader(
    features: np.ndarray, panel: Any, answers: Any, n_options: Any, seed: int = 0, options: Any = None,
    cases: Any = None,
) -> Callable[..., np.ndarray]:  # fmt: skip
    """The ideal reader: five networks with one hidden layer on all that the attending can see; gives predict -> (n, slots) probabilities.

    features (n, d): frozen image features, question, kind; panel (n, e): the panel's options, None = image only;
    answers, n_options (n,); options (n, slots, k): features of each option's text, where it varies. Every slot is
    scored by the same weights; cases (n,): ids, where a case has several rows. predict(features, panel, n_options, options).
    """
    import torch
    from torch import nn

    slots = int(np.max(n_options)) if options is None else np.shape(options)[1]  # other cases may offer more than those it is fitted on
    mean, scale = features.mean(axis=0), features.std(axis=0) + 1e-6

    def inputs(features: np.ndarray, panel: Any, n_options: Any, options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        n, count = len(features), np.asarray(n_options)
        votes = np.full((n, 1), -1) if panel is None else np.asarray(panel)
        said = np.eye(slots + 1)[votes][:, :, :slots]  # (n, e, slots): one-hot, all zero where nothing was said
        shared = np.hstack([(features - mean) / scale, said.reshape(n, -1), np.eye(slots + 1)[count]])
        parts = [np.repeat(shared[:, None], slots, axis=1), said.transpose(0, 2, 1), np.tile(np.eye(slots), (n, 1, 1))]
        if options is not None:  # what each slot says, and what the panel's choices say
            texts = np.asarray(options, float)[:, :slots]
            parts += [texts, np.repeat(np.einsum("nes,nsk->nk", said, texts)[:, None], slots, axis=1)]
        closed = np.where(np.arange(slots) < count[:, None], 0.0, -1e9)  # no score for a slot that is not offered
        return torch.tensor(np.concatenate(parts, axis=2), dtype=torch.float32), torch.tensor(closed)

    x, closed = inputs(features, panel, n_options, options)
    gold, rng = torch.tensor(np.asarray(answers)), np.random.default_rng(seed)
    groups = np.arange(len(x)) if cases is None else np.unique(np.asarray(cases), return_inverse=True)[1]
    # Five networks, each held out a fifth of the cases by which its epoch is picked; their probabilities are averaged.
    fold = rng.permutation(groups.max() + 1)[groups] % 5
    nets = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for k in tqdm(range(5), desc="ideal reader", mininterval=2):
            net = nn.Sequential(nn.Linear(x.shape[2], 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 1), nn.Flatten(1))
            nets.append(_fit(net, x, closed, gold, np.flatnonzero(fold != k), np.flatnonzero(fold == k), rng))

    def predict(features: np.ndarray, panel: Any, n_options: Any, options: Any = None) -> np.ndarray:
        x, closed = inputs(features, panel, n_options, options)
        with torch.no_grad():
            return torch.stack([(net(x) + closed).softmax(1) for net in nets]).mean(0).numpy()

    return predict


def _fit(net: Any, x: Any, closed: Any, gold: Any, train: np.ndarray, held: np.ndarray, rng: np.random.Generator) -> Any:
    """Fit one network of the ideal reader on (n, slots, features); the epoch with the lowest held-out loss is kept."""
    import torch
    from torch import nn

    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.05)
    best, kept, since = float("inf"), net.state_dict(), 0
    while since < 5:
        net.train()
        for batch in np.array_split(rng.permutation(train), max(1, len(train) // 256)):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x[batch]) + closed[batch], gold[batch]).backward()
            optimiser.step()
        net.eval()
        with torch.no_grad():
            loss = float(nn.functional.cross_entropy(net(x[held]) + closed[held], gold[held]))
        since += 1
        if loss < best:
            best, kept, since = loss, {name: weight.clone() for name, weight in net.state_dict().items()}, 0
    net.load_state_dict(kept)
    return net.eval()

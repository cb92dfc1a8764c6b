"""Features of the frozen vision tower, computed once: no picture is encoded twice by a process."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling


class FeatureMemory:
    """Features of pictures by key, the youngest ``limit`` bytes of them, on the CPU."""

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self.kept: OrderedDict[bytes, torch.Tensor] = OrderedDict()

    def add(self, key: bytes, features: torch.Tensor) -> None:
        """Remember; the oldest go first."""
        self.kept[key] = features
        self.size += features.nbytes
        while self.size > self.limit:
            self.size -= self.kept.popitem(last=False)[1].nbytes


MEMORY = FeatureMemory(2**30)  # of this process: policies that stand on one tower share it


def share_image_features(model: Any, memory: FeatureMemory = MEMORY) -> None:
    """Encode each image once: remember the output of the frozen tower by the hash of its weights and of the image's pixels.

    The weights are hashed again where PyTorch counts a write; one through ``.data`` it does not count.
    """
    core = model.model
    encode: Callable[..., Any] = core.get_image_features
    towers: dict[tuple[int, ...], bytes] = {}  # hash of the weights, as long as nobody has written to them

    def tower() -> bytes:
        written = tuple(p._version for p in core.visual.parameters())
        if written not in towers:
            digest = hashlib.blake2b(digest_size=16)
            for p in core.visual.parameters():
                digest.update(p.detach().cpu().float().numpy().tobytes())
            towers.clear()
            towers[written] = digest.digest()
        return towers[written]

    def get_image_features(pixel_values: torch.Tensor, image_grid_thw: torch.Tensor, **kwargs: Any) -> Any:
        if any(p.requires_grad for p in core.visual.parameters()):
            return encode(pixel_values, image_grid_thw, **kwargs)
        patches = pixel_values.split([int(n) for n in image_grid_thw.prod(1)])  # one (patches, channels) tensor an image
        weights = tower()
        keys = [
            hashlib.blake2b(p.cpu().float().numpy().tobytes() + str(g.tolist()).encode(), digest_size=16, key=weights).digest()
            for p, g in zip(patches, image_grid_thw, strict=True)
        ]
        found = {key: memory.kept[key] for key in keys if key in memory.kept}
        new = {key: i for i, key in enumerate(keys) if key not in found}
        if new:
            index = list(new.values())
            with torch.no_grad():
                fresh = encode(torch.cat([patches[i] for i in index]), image_grid_thw[index], **kwargs).pooler_output
            for key, features in zip(new, fresh, strict=True):
                found[key] = features.detach().cpu()
                memory.add(key, found[key])
        return BaseModelOutputWithPooling(pooler_output=tuple(found[key].to(pixel_values.device) for key in keys))  # each (tokens, hidden)

    core.get_image_features = get_image_features

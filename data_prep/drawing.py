"""How a phantom is drawn: seven looks, findings that fade, the marker of each department's blind spot.

Integer arithmetic only, so that the same seed gives the same pixels on any CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

SIZE = 64
LOOKS = ("histology", "chest X-ray", "endoscopy", "PET", "thyroid ultrasound", "fundus", "dermoscopy")
FINDINGS = ("nodule", "mass", "cyst", "normal")
PLACES = ("upper left", "upper right", "lower left", "lower right")
# What the marker of each department's blind spot looks like on the picture.
MARKS = ("ink dots", "clip", "glare", "injection streak", "calliper", "lens dust", "ruler")

_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.int32)
_I = np.ndarray  # int32 arrays of shape (64, 64) or (64, 64, 3)


@dataclass(frozen=True)
class Phantom:
    """All that decides the pixels of one picture. ``contrast`` 0-256, ``noise`` in grey levels, ``shift`` 0 or 1 (unseen style)."""

    seed: int
    look: str
    finding: str
    place: str
    contrast: int
    marked: bool
    noise: int = 12
    view: int = 0
    shift: int = 0


def _disc(cx: int, cy: int, inner: int, outer: int) -> _I:
    """Soft disc, 0-256: full inside radius ``inner``, nothing outside ``outer`` (pixels)."""
    d2 = (_X - cx) ** 2 + (_Y - cy) ** 2
    t = np.clip((outer * outer - d2) * 256 // max(1, outer * outer - inner * inner), 0, 256)
    return (t * t * (768 - 2 * t)) >> 16


def _ellipse(cx: int, cy: int, rx: int, ry: int, soft: int = 6) -> _I:
    """Soft ellipse, 0-256; ``soft`` sixteenths of the radius fade."""
    d = (_X - cx) ** 2 * 4096 // (rx * rx) + (_Y - cy) ** 2 * 4096 // (ry * ry)
    return np.clip((4096 + soft * 256 - d) * 256 // (soft * 512), 0, 256)


def _mix(image: _I, mask: _I, colour: tuple[int, int, int]) -> _I:
    """Blend ``colour`` over (64, 64, 3) ``image`` where ``mask`` (64, 64), 0-256, says so."""
    return image + (((np.array(colour, np.int32) - image) * mask[..., None]) >> 8)


def _flat(colour: tuple[int, int, int]) -> _I:
    return np.broadcast_to(np.array(colour, np.int32), (SIZE, SIZE, 3)).copy()


def _histology(rng: np.random.Generator) -> _I:
    centres = rng.integers(0, SIZE, (26, 2)).astype(np.int32)
    d2 = ((_X[None] - centres[:, :1, None]) ** 2 + (_Y[None] - centres[:, 1:, None]) ** 2).min(0)
    return _mix(_flat((232, 180, 210)), np.clip((9 - d2) * 40, 0, 130), (120, 70, 150))


def _chest(rng: np.random.Generator) -> _I:
    dx, dy = (int(v) for v in rng.integers(-2, 3, 2))
    image = _mix(_flat((40, 40, 40)), _ellipse(32 + dx, 36 + dy, 30, 36), (165, 165, 165))
    for cx in (18, 46):
        image = _mix(image, (_ellipse(cx + dx, 32 + dy, 13, 25) * 200) >> 8, (70, 70, 70))
    ribs = (((_Y * 2 + abs(_X - 32) + dy) % 18) < 4).astype(np.int32) * 34
    return _mix(image, ribs, (200, 200, 200))


def _endoscopy(rng: np.random.Generator) -> _I:
    lx, ly = (32 + int(v) for v in rng.integers(-4, 5, 2))
    image = _mix(_flat((12, 6, 8)), _disc(32, 32, 28, 33), (215, 115, 100))
    folds = (((_X - lx) ** 2 + (_Y - ly) ** 2) // 48 % 5 == 0).astype(np.int32) * 46
    return _mix(_mix(image, folds, (150, 60, 60)), _disc(lx, ly, 2, 10), (70, 20, 24))


def _pet(rng: np.random.Generator) -> _I:
    dx = int(rng.integers(-2, 3))
    image = _mix(_flat((8, 4, 30)), _ellipse(32 + dx, 34, 28, 34), (70, 20, 110))
    image = _mix(image, (_disc(32 + dx, 4, 3, 9) * 220) >> 8, (250, 160, 30))
    return _mix(image, (_disc(32 + dx, 60, 2, 7) * 220) >> 8, (250, 200, 60))


def _ultrasound(rng: np.random.Generator) -> _I:
    speckle = rng.integers(95, 145, (SIZE // 2, SIZE // 2)).astype(np.int32).repeat(2, 0).repeat(2, 1)
    bands = ((_Y + (_X >> 3)) % 23 < 4).astype(np.int32) * 26
    grey = (speckle + bands + 10) * (110 - abs(_X - 32)) // 110
    return np.repeat(np.where(_Y < 4, 210, grey)[..., None], 3, 2).astype(np.int32)


def _fundus(rng: np.random.Generator) -> _I:
    side = 54 if rng.integers(2) else 10
    image = _mix(_flat((6, 4, 2)), _disc(32, 32, 29, 32), (205, 95, 35))
    image = _mix(image, _disc(side, 32, 3, 6), (250, 220, 150))
    for bend in (-1, 1):
        vessel = abs(_Y - 32 - bend * (abs(_X - side) * (68 - abs(_X - side))) // 70) <= 1
        image = _mix(image, vessel.astype(np.int32) * (_disc(32, 32, 28, 31) * 120 >> 8), (130, 30, 20))
    return image


def _dermoscopy(rng: np.random.Generator) -> _I:
    image = _flat((222, 175, 150))
    pores = rng.integers(0, 64, (SIZE // 4, SIZE // 4)).astype(np.int32).repeat(4, 0).repeat(4, 1)
    image = _mix(image, pores, (200, 140, 120))
    for slope in rng.integers(-3, 4, 2):
        x0 = int(rng.integers(0, SIZE))
        hair = abs((_X - x0) * 4 - int(slope) * _Y) <= 2
        image = _mix(image, hair.astype(np.int32) * 90, (90, 60, 40))
    return image


_DRAW = dict(zip(LOOKS, (_histology, _chest, _endoscopy, _pet, _ultrasound, _fundus, _dermoscopy), strict=True))
# Colour a finding takes in each look (cells cluster, opacity, growth, uptake, hypo-echoic, bleeding, pigment).
_COLOUR = dict(
    zip(
        LOOKS,
        ((60, 10, 95), (238, 238, 238), (250, 205, 120), (255, 235, 120), (14, 14, 14), (110, 10, 8), (96, 52, 30)),
        strict=True,
    )
)


def _finding(rng: np.random.Generator, finding: str, place: str) -> _I:
    """Mask (64, 64), 0-256, of a finding near the middle of its quadrant."""
    jx, jy, size = (int(v) for v in rng.integers(-3, 4, 3))
    cx = (20 if place.endswith("left") else 44) + jx
    cy = (20 if place.startswith("upper") else 44) + jy
    if finding == "nodule":
        return _disc(cx, cy, 3, 5)
    if finding == "mass":
        return _disc(cx, cy, 7 + size // 3, 11 + size // 3)
    if finding == "cyst":
        return np.clip(_disc(cx, cy, 7, 9 + size // 3) - _disc(cx, cy, 3, 6), 0, 256)
    return np.zeros((SIZE, SIZE), np.int32)


def _mark(image: _I, look: str, rng: np.random.Generator) -> _I:
    """Draw the department's marker at the border of the picture, away from the findings."""
    x, y = int(rng.integers(6, 58)), int(rng.choice((4, 59)))
    kind = LOOKS.index(look)
    bar = ((abs(_Y - y) <= 1) & (abs(_X - x) <= 5)).astype(np.int32) * 256
    post = ((abs(_X - x) <= 1) & (abs(_Y - y) <= 4)).astype(np.int32) * 256
    shape = (
        np.maximum(_disc(x - 4, y, 2, 3), _disc(x + 4, y, 2, 3)),
        np.maximum(bar, post),
        _disc(x, y, 3, 5),
        bar,
        np.maximum(bar, post),
        np.maximum(_disc(x, y, 2, 4), _disc(x + 6, y, 1, 2)),
        bar * ((_X + _Y) % 2 + 1) // 2,
    )[kind]
    colour = (
        (20, 170, 90),
        (60, 220, 255),
        (255, 255, 255),
        (60, 255, 120),
        (255, 240, 40),
        (120, 160, 255),
        (40, 90, 255),
    )[kind]
    return _mix(image, shape, colour)


def draw(p: Phantom) -> Image.Image:
    """Draw one phantom as a 64 x 64 RGB picture. Background, finding, marker and noise have a random stream each."""
    background, finding, mark, noise = (np.random.Generator(np.random.PCG64([p.seed, i])) for i in range(4))
    image = _DRAW[p.look](background)
    if p.shift:  # unseen style: darker, with a colour cast
        image = image * np.array((200, 230, 256), np.int32) >> 8
    mask = (_finding(finding, p.finding, p.place) * p.contrast) >> 8
    image = _mix(image, mask, _COLOUR[p.look])
    if p.marked:
        image = _mark(image, p.look, mark)
    grain = np.random.Generator(np.random.PCG64([p.seed, 4, p.view])) if p.view else noise
    # Sum of four bytes is close to a normal: standard deviation 148.
    grey = grain.integers(0, 256, (4, SIZE, SIZE), dtype=np.uint8).sum(0, dtype=np.int32) - 510
    image = image + (grey * p.noise // 148)[..., None]
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))

"""A picture as every part of the kit sees it: 8-bit RGB, upright, named by the hash of its pixels."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from mmedlite.profiles import InputError

SMALLEST, LARGEST, LONGEST = 8, 100_000_000, 100  # pixels of a side, pixels in all, times as long as wide


def to_rgb(image: Image.Image) -> Image.Image:
    """Any picture as 8-bit RGB. Deep grey pictures (16-bit, float) are stretched from their minimum to their maximum:
    clipping them, Pillow's default, would turn a 12-bit scan white."""
    if image.mode.startswith(("I", "F")):
        pixels = np.asarray(image, dtype=np.float64)
        if not np.isfinite(pixels).all():
            raise ValueError("a value that is no number")  # load_rgb says which picture
        scale = 255.0 / max(float(np.ptp(pixels)), 1e-12)
        image = Image.fromarray(np.rint((pixels - pixels.min()) * scale).astype(np.uint8))
    return image.convert("RGB")


def usable(size: tuple[int, int]) -> None:
    """Raise an InputError for a picture that no policy could read, as one of 1 x 1 or 20,000 x 20,000 pixels."""
    short, long = sorted(size)
    told = "{} x {} pixels".format(*size)
    if short < SMALLEST:
        raise InputError(f"picture of {told}: a side is below {SMALLEST}")
    if short * long > LARGEST or long > LONGEST * short:
        raise InputError(f"picture of {told}: more than {LARGEST:,} pixels, or over {LONGEST} times as long as wide")


def load_rgb(path: Path | BinaryIO) -> Image.Image:
    """Read a picture file as RGB, upright by its EXIF mark. InputError where it is missing or unreadable."""
    try:
        with Image.open(path) as image:
            return to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # Pillow raises many kinds on damaged files (OSError, SyntaxError, ValueError, ...)
        kind = type(error).__name__
        what = "missing image" if isinstance(error, FileNotFoundError) else f"unreadable image ({kind})"
        raise InputError(what, str(path), "put a good file there, or take its row out") from error


def image_sha256(image: Image.Image) -> str:
    """SHA-256 of size and decoded RGB bytes: the same picture in another file format keeps its name."""
    rgb = to_rgb(image)
    return hashlib.sha256(b"%dx%d:" % rgb.size + rgb.tobytes()).hexdigest()

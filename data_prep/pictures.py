"""Where a question's picture comes from, each source as (key, load): a file, bytes in a table, a member of a zip archive.

The key changes with the content, so that a build that was stopped need not decode again what it has stored.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image

from mmedlite.cases import load_rgb
from mmedlite.profiles import InputError

SMALLEST, LARGEST, LONGEST = 8, 100_000_000, 100  # pixels of a side, pixels in all, times as long as wide


class Picture(NamedTuple):
    """A picture that can be opened; ``key`` names its content."""

    key: str
    load: Callable[[], Image.Image]


def usable(image: Image.Image) -> Image.Image:
    """The picture; InputError where no policy could read it, as for one of 1 x 1 or 20,000 x 20,000 pixels."""
    short, long = sorted(image.size)
    size = "{} x {} pixels".format(*image.size)
    if short < SMALLEST:
        raise InputError(f"picture of {size}: a side is below {SMALLEST}")
    if short * long > LARGEST or long > LONGEST * short:
        raise InputError(f"picture of {size}: more than {LARGEST:,} pixels, or over {LONGEST} times as long as wide")
    return image


def from_file(path: Path) -> Picture:
    """A picture file; a missing one, or a name that no file can have, is told when it is loaded."""
    try:
        state = path.stat()
    except (OSError, ValueError):
        return Picture("missing", missing)
    return Picture(f"{path}:{state.st_size}:{state.st_mtime_ns}", lambda: usable(load_rgb(path)))


def missing() -> Image.Image:
    """InputError: there is no picture."""
    raise InputError("missing image")


def from_bytes(content: bytes | None) -> Picture:
    """An encoded picture in a cell of a table."""
    if not content:
        return Picture("missing", missing)
    return Picture(hashlib.sha256(content).hexdigest(), lambda: usable(load_rgb(io.BytesIO(content))))


def from_zip(archive: zipfile.ZipFile, name: str) -> Picture:
    """A member of an archive. Only names that the archive lists are read, and nothing is unpacked to disk.

    A name that climbs out of the archive or is absolute gives an InputError when it is loaded, as does a damaged member.
    """
    listed = name in archive.NameToInfo
    key = f"{archive.filename}:{name}:{archive.NameToInfo[name].CRC if listed else 'missing'}"

    def load() -> Image.Image:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InputError("the name of the picture climbs out of the archive")
        if not listed:
            missing()
        try:
            content = archive.read(name)
        except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
            raise InputError(f"unreadable image (damaged archive: {type(error).__name__})") from error
        return usable(load_rgb(io.BytesIO(content)))

    return Picture(key, load)


def beside_each_other(parts: list[Picture]) -> Picture:
    """Several pictures of one question as one, from left to right, each as high as the highest, 8 black pixels between them."""
    if len(parts) == 1:
        return parts[0]

    def load() -> Image.Image:
        images = [part.load() for part in parts]
        height = max(image.height for image in images)
        whole = Image.new("RGB", (sum(image.width for image in images) + 8 * (len(images) - 1), height))
        left = 0
        for image in images:
            whole.paste(image, (left, 0))
            left += image.width + 8
        return usable(whole)

    return Picture("+".join(part.key for part in parts), load)


def dhash(image: Image.Image) -> int:
    """Perceptual hash of 64 bits: is each of 8 x 8 patches brighter than the one on its left? Small changes of size, brightness or
    encoding move few bits (Krawetz 2013)."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BILINEAR), dtype=np.int16)
    return int("".join("1" if bright else "0" for bright in (grey[:, 1:] > grey[:, :-1]).ravel()), 2)

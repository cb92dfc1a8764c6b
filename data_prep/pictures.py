"""Where a question's picture comes from, each source as (key, load): a file, bytes in a table, a member of a zip archive.

The key changes with the content, so that a build that was stopped need not decode again what it has stored.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from data_prep.hub import member
from mmedlite.pictures import load_rgb, usable
from mmedlite.profiles import InputError


class Picture(NamedTuple):
    """A picture that can be opened; ``key`` names its content."""

    key: str
    load: Callable[[], Image.Image]


def read(file: Path | io.BytesIO) -> Image.Image:
    """A picture as RGB; its size is looked at before it is decoded. InputError where it is damaged, too small or too large."""
    if isinstance(file, Path) and file.exists() and not file.is_file():
        raise InputError("no regular file")  # opening a pipe would wait for ever
    size = None
    with contextlib.suppress(OSError, ValueError, SyntaxError, Image.DecompressionBombError), Image.open(file) as image:
        size = image.size
    if size:  # of a damaged file ``load_rgb`` tells what is wrong
        usable(size)
    if isinstance(file, io.BytesIO):
        file.seek(0)
    return load_rgb(file)


def climbs(name: str) -> bool:
    """Does a name lead out of the folder or archive that it is said to lie in?"""
    return PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts


def from_file(folder: Path, name: str) -> Picture:
    """A picture file of a folder; one that is missing, or a name that no file there can have, is told when it is loaded."""
    try:
        state = (path := folder / name).stat()
    except (OSError, ValueError):
        return Picture("missing", missing)
    if climbs(name):
        return Picture("climbs", partial(missing, "the name of the picture climbs out of the folder"))
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]  # no path of this machine
    return Picture(f"{place}:{state.st_size}:{state.st_mtime_ns}", partial(read, path))


def missing(why: str = "missing image") -> Image.Image:
    """InputError: there is no picture."""
    raise InputError(why)


def from_cell(cell: Any) -> Picture:
    """A picture in a cell of a hub's table: {"bytes", "path"}, or the bytes alone; anything else is a missing one."""
    content = cell.get("bytes") if isinstance(cell, dict) else cell
    return from_bytes(content if isinstance(content, bytes) else None)


def from_bytes(content: bytes | None) -> Picture:
    """An encoded picture."""
    if not content:
        return Picture("missing", missing)
    return Picture(hashlib.sha256(content).hexdigest(), lambda: read(io.BytesIO(content)))


def from_zip(archive: zipfile.ZipFile, name: str) -> Picture:
    """A member of an archive. Only names that the archive lists are read, and nothing is unpacked to disk.

    A name that climbs out of the archive or is absolute gives an InputError when it is loaded, as does a damaged member.
    """
    listed = name in archive.NameToInfo
    key = f"{Path(str(archive.filename)).name}:{name}:{archive.NameToInfo[name].CRC if listed else 'missing'}"

    def load() -> Image.Image:
        if climbs(name):
            missing("the name of the picture climbs out of the archive")
        if not listed:
            missing()
        return read(io.BytesIO(member(archive, name)))

    return Picture(key, load)


def beside_each_other(parts: list[Picture]) -> Picture:
    """Several pictures of one question as one, from left to right, each as high as the highest, 8 black pixels between them."""
    if len(parts) == 1:
        return parts[0]

    def load() -> Image.Image:
        images = [part.load() for part in parts]
        width, height = sum(image.width + 8 for image in images) - 8, max(image.height for image in images)
        usable((width, height))  # before so large a one is made
        whole = Image.new("RGB", (width, height))
        left = 0
        for image in images:
            whole.paste(image, (left, 0))
            left += image.width + 8
        return whole

    return Picture("+".join(part.key for part in parts), load)


def dhash(image: Image.Image) -> int:
    """Perceptual hash of 64 bits: is each of 8 x 8 patches brighter than the one on its left? Small changes of size, brightness or
    encoding move few bits (Krawetz 2013)."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BILINEAR), dtype=np.int16)
    return int("".join("1" if bright else "0" for bright in (grey[:, 1:] > grey[:, :-1]).ravel()), 2)

"""What a chat completion is made of: the picture as it is sent, the limit of an answer, the pause that a server asks for."""

from __future__ import annotations

import base64
import functools
import io
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from mmedlite.cases import image_sha256, load_rgb
from mmedlite.profiles import InputError


@functools.lru_cache(maxsize=64)  # the samples of a case follow on one another
def data_url(file: Path, sha256: str, longest_side: int) -> str:
    """A picture as it is sent: at most ``longest_side`` pixels a side, as PNG.

    Raises:
        InputError: it is missing, unreadable, or not the picture of that hash, under which the answer would be stored.
    """
    picture = load_rgb(file)
    if image_sha256(picture) != sha256:
        raise InputError("the picture is not the one of the case table", str(file), "restore it, or make the table again")
    picture.thumbnail((longest_side, longest_side))
    picture.save(content := io.BytesIO(), format="PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def output_limit(sampling: Mapping[str, Any]) -> int:
    """Tokens that an answer may have; ``profiles`` sees to it that a limit is given."""
    return int(sampling.get("max_completion_tokens") or sampling["max_tokens"])


def retry_after(header: str | None) -> float:
    """Seconds to wait by a Retry-After header, which gives seconds or a date; 0 if it gives neither."""
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header or "").timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0

"""The attending's chair as a page of its own (``figures/drawn/chair.html``) and as a strip, both from ``chair.json``."""

from __future__ import annotations

import json

from figures import _save
from mmedlite.chair import STORED, page, strip

SHOWN = 2  # the phantom of the strip, and behind it the same one marked


def main() -> None:
    """Draw what is there."""
    if STORED.exists():
        found = json.loads(STORED.read_text(encoding="utf-8"))
        _save.save("chair_strip", *strip(found, "diverse", SHOWN))
        (_save.DRAWN / "chair.html").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()

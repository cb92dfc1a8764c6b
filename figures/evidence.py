"""Counts what worlds and rivals say, and stores it; see ``mmedlite.evidence``. Trains nothing."""

from __future__ import annotations

import json

from mmedlite import looking
from mmedlite.evaluation import signed
from mmedlite.evidence import DATA, controls, count, rivals
from mmedlite.verify import write_manifest


def main() -> None:
    """Count, store, seal, print."""
    worlds = count()
    for name, content in (("evidence", worlds), ("rivals", rivals()), ("controls", controls()), ("looks", looking.count())):
        (DATA / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    write_manifest(DATA)
    for name, row in worlds.get("primary", {}).items():
        print(f"{name}: {signed(row)}, p {row['p']:.4f}, Holm {row['p_holm']:.3f}: {row['verdict']}")


if __name__ == "__main__":
    main()

"""Counts what the stored answers say (``mmedlite.verify_evidence.COUNTED``), stores it and seals ``figures/data``. Trains nothing."""

from __future__ import annotations

import json

from mmedlite.evaluation import signed
from mmedlite.evidence import DATA
from mmedlite.provenance import no_nan
from mmedlite.verify import seal
from mmedlite.verify_evidence import COUNTED


def main() -> None:
    """Count, store, seal, print."""
    found = {name: count(DATA) for name, count in COUNTED.items()}
    for name, content in found.items():
        (DATA / f"{name}.json").write_text(json.dumps(no_nan(content), indent=1) + "\n", encoding="utf-8")
    seal(DATA)
    for name, row in found["evidence"].get("primary", {}).items():
        print(f"{name}: {signed(row)}, p {row['p']:.4f}, Holm {row['p_holm']:.3f}: {row['verdict']}")


if __name__ == "__main__":
    main()

"""The claims ledger: what the paper says, what would refute it, and what may be said of it."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping

from mmedlite.profiles import InputError

VERDICTS = {  # only a reproduction may say that a claim of the paper holds
    "audit": ("adds up", "does not add up"),
    "mechanism": ("seen", "not seen", "depends"),
    "reproduction": ("holds", "does not hold"),
}


def ledger(claims: Iterable[Mapping[str, str]]) -> tuple[str, str]:
    """HTML table of claims {claim, kind, evidence, verdict} and its alt text; a verdict must suit its kind."""
    claims = list(claims)
    for row, claim in enumerate(claims):
        allowed = VERDICTS.get(claim["kind"], ())
        if not claim["verdict"].startswith(allowed or "\0"):
            choices = "; ".join(f"{kind}: {', '.join(words)}" for kind, words in VERDICTS.items())
            what = f"a claim of kind '{claim['kind']}' cannot be '{claim['verdict']}'"
            raise InputError(what, f"claim {row}", f"use {choices}")
    columns = ("claim", "kind", "evidence", "verdict")
    body = "".join("<tr>" + "".join(f"<td>{html.escape(c[k])}</td>" for k in columns) + "</tr>" for c in claims)
    head = "".join(f'<th scope="col">{k}</th>' for k in columns)
    alt = f"Ledger of {len(claims)} claims: " + "; ".join(f"{c['claim']}: {c['verdict']} ({c['kind']})" for c in claims) + "."
    return (
        f"<table><caption>{html.escape(alt)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>",
        alt,
    )

"""Markdown for the papers: tables whose cells cannot break out of them, and numbers as people read them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from training.release.papers.sources import Share

MOST_ROWS_SHOWN = 40
_SPECIAL = re.compile(r"[\\|\[\]]")


def cell(value: object) -> str:
    """Return text that stays text in its cell: a page may name any "licence", and a table is no place for its links.

    >>> print(cell("a|b\\n[c]"), cell(1200))
    a\\|b \\[c\\] 1,200
    """
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return " ".join(_SPECIAL.sub(r"\\\g<0>", text).replace("<", "&lt;").split()) or " "


def many(number: int, noun: str) -> str:
    """Return a number of things.

    >>> many(1, "host"), many(1200, "host")
    ('1 host', '1,200 hosts')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, right: int | None = None) -> list[str]:
    """Return a table's lines and the empty line after it.

    Args:
        right: the first of the columns that hold numbers, set to the right.
    """
    numbers = len(headers) if right is None else right
    rule = ["---" if column < numbers else "---:" for column in range(len(headers))]
    lines = [headers, rule, *([cell(value) for value in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]


def share_of(part: int, whole: int) -> str:
    """Return a part in percent of the whole.

    >>> share_of(1, 8), share_of(0, 0)
    ('12.5 %', '0.0 %')
    """
    return f"{100 * part / whole if whole else 0:.1f} %"


def share_rows(shares: Sequence[Share], total: Share, *, shown: int = MOST_ROWS_SHOWN) -> list[Sequence[object]]:
    """Return rows of name, documents, bytes, tokens and share of tokens; what is beyond `shown` as one row."""
    listed = list(shares[:shown])
    if rest := shares[shown:]:
        listed.append(
            Share(
                name=f"{len(rest):,} more",
                documents=sum(share.documents for share in rest),
                bytes=sum(share.bytes for share in rest),
                tokens=sum(share.tokens for share in rest),
            )
        )
    return [
        (share.name, share.documents, share.bytes, share.tokens, share_of(share.tokens, total.tokens))
        for share in listed
    ]


SHARE_HEADERS = ("documents", "bytes", "tokens", "share of tokens")


def counted(counts: Mapping[str, int]) -> str:
    """Return counts as a sentence's part.

    >>> counted({"email": 1200, "ip": 3}), counted({})
    ('email: 1,200, ip: 3', 'none')
    """
    return ", ".join(f"{name}: {number:,}" for name, number in counts.items()) or "none"


def page(lines: Iterable[str]) -> bytes:
    """Return the lines as a file, ended by one line end."""
    return ("\n".join(lines).rstrip("\n") + "\n").encode()

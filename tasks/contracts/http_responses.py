"""Which HTTP answers hold a page: the crawl and extract ask here, so that one stores what the other reads."""

from __future__ import annotations

# RFC 9110, section 15.3, of an answer to GET: 200, and 203 (the same through a proxy), hold what was asked for. 201 and
# 202 speak of what became of the request, 204 and 205 hold nothing, 206 and 226 a part or a difference (RFC 3229),
# 207 and 208 states of many things (RFC 4918, 5842).
PAGE_STATUSES = frozenset({200, 203})
# Answers that say why a page is withheld from whoever asks so, as ledger rules: 402 (RFC 9110, section 15.5.3; pay per
# crawl sends it with a price) and 451 (RFC 7725). They are evidence: the crawl keeps the whole answer.
REFUSALS = {402: "payment_required", 451: "legal_reasons"}


def no_page(status: int | None, content_range: str = "") -> str | None:
    """Return why an answer is no page, as a ledger rule; None where it is one.

    A Content-Range field says that the body is a part, whatever the status; one that covers everything is let pass.

    >>> no_page(200), no_page(206), no_page(402), no_page(200, "bytes 0-9/100"), no_page(200, "bytes 0-99/100")
    (None, 'http_206', 'payment_required', 'partial_content', None)
    """
    if status in REFUSALS:
        return REFUSALS[status]
    if status not in PAGE_STATUSES:
        return f"http_{status}"
    return "partial_content" if content_range.strip() and not _covers_all(content_range) else None


def may_pass(status: int) -> bool:
    """Tell whether the same request may get another answer later (RFC 9110, 15.5.9 and 15.6; RFC 6585, 4; RFC 8470).

    >>> may_pass(503), may_pass(429), may_pass(404)
    (True, True, False)
    """
    return status >= 500 or status in (408, 425, 429)


def _covers_all(content_range: str) -> bool:
    """Tell whether a Content-Range names every byte (RFC 9110, section 14.4): "bytes 0-99/100"."""
    covered, _, size = content_range.strip().lower().removeprefix("bytes").strip().partition("/")
    first, _, last = covered.partition("-")
    if not (first.isdecimal() and last.isdecimal() and size.isdecimal()) or len(size) > 20 or len(last) > 20:
        return False
    return int(first[:20]) == 0 and int(last) + 1 == int(size)


MOST_CODINGS = 5  # layers of Content-Encoding that are undone; each may be as large as the body


def codings(content_encoding: str) -> list[str]:
    """Return the content codings of an answer in the order in which they were applied.

    Raises:
        ValueError: more than `MOST_CODINGS`.

    >>> codings("gzip, BR"), codings("")
    (['gzip', 'br'], [])
    """
    if content_encoding.count(",") > 10 * MOST_CODINGS:
        raise ValueError(f"{content_encoding.count(',') + 1} content codings, at most {MOST_CODINGS} are undone")
    named = [coding.strip().lower() for coding in content_encoding.split(",") if coding.strip()]
    if len(named) > MOST_CODINGS:
        raise ValueError(f"{len(named)} content codings, at most {MOST_CODINGS} are undone")
    return named

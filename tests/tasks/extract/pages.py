"""Pages and WARC records for the tests of extraction."""

import gzip
from collections.abc import Mapping

from tasks.extract.warc_pages import Page

PROSE = "<p>The river rises in the hills and runs to the sea, where it is met with the tide twice every day.</p>"
SENTENCES = [
    f"The {name} of the valley was built in the year of the great flood, and nobody who lives there has forgotten it. "
    f"When the {name} was burnt in the war of the two brothers, it was built again with the stones that were left."
    for name in ("bridge", "mill", "church", "market", "school", "harbour")
]
LINKS = "".join(f'<li><a href="/{n}">Section number {n} of this site</a></li>' for n in range(12))
ARTICLE = "".join(f"<p>{sentence}</p>" for sentence in SENTENCES)
PAGE = f"""<!doctype html><html lang=en><head><title>The valley | The Coast</title>
<meta name="author" content="Ann Example"><meta property="article:published_time" content="2026-01-31T10:00:00Z">
<link rel="license" href="https://creativecommons.org/licenses/by-sa/4.0/"></head><body>
<nav class="menu"><ul>{LINKS}</ul></nav>
<main><article><h1>The valley</h1>{ARTICLE}</article></main>
<div class="related"><ul>{LINKS}</ul></div>
<footer><p>Copyright The Coast, all rights reserved, printed on paper from the forests of the north.</p></footer>
</body></html>"""


def page(html: str | bytes, content_type: str = "text/html; charset=utf-8") -> Page:
    body = html if isinstance(html, bytes) else html.encode()
    facts = {"record_id": "", "url": "", "host": "", "captured_at": None, "offset": 0, "payload_digest": None}
    return Page(**facts, content_type=content_type, body=body)  # type: ignore[arg-type]


def record(number: int, body: bytes, headers: Mapping[str, str] | None = None, status: str = "200 OK") -> bytes:
    fields = {"Content-Type": "text/html; charset=utf-8", **(headers or {})}
    http = f"HTTP/1.1 {status}\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items())
    block = http.encode() + b"\r\n" + body
    head = (
        f"WARC/1.1\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:{number}>\r\nWARC-Date: 2026-01-02T03:04:05Z\r\n"
        f"WARC-Target-URI: https://a.example/{number}\r\nContent-Type: application/http; msgtype=response\r\n"
        f"Content-Length: {len(block)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + block + b"\r\n\r\n", mtime=0)

"""The pages that benchmarks work on: WARC files of as many different pages as are asked for.

Without pages of your own, those of the embedded sample. More pages than there are come from copies in which a fifth of
the words have been replaced, so that a copy is neither a duplicate nor a text of another kind.
"""

from __future__ import annotations

import io
import random
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from tasks.crawl.sample.site import build_pages
from tasks.extract.warc_pages import read_pages

CHANGED = 0.2
TAG_OR_WORD = re.compile(rb"<[^>]*>|[A-Za-z]{4,}")


def sample_pages() -> list[tuple[str, bytes]]:
    """Return the HTML pages of the embedded sample with their URLs."""
    return [(page.url, page.body) for page in build_pages(2) if page.status == 200 and b"<html" in page.body]


def pages_of(paths: Sequence[Path]) -> list[tuple[str, bytes]]:
    """Return the HTML bodies of WARC files, transfer and content codings undone, with their URLs."""
    return [(page.url, page.body) for path in paths for page in read_pages(path, 20_000_000) if not page.reason]


def write_warcs(pages: Sequence[tuple[str, bytes]], count: int, files: int, folder: Path) -> int:
    """Write `count` pages, spread over `files` WARC files, and return their size in bytes."""
    folder.mkdir(parents=True)
    writers = [WARCWriter((folder / f"pages-{n:03d}.warc.gz").open("wb"), gzip=True) for n in range(files)]
    for number, (url, body) in enumerate(_copies(pages, count)):
        headers = StatusAndHeaders("200 OK", [("Content-Type", "text/html")], protocol="HTTP/1.1")
        fields = {"WARC-Identified-Payload-Type": "text/html", "WARC-Date": "2026-01-01T00:00:00Z"}
        writer = writers[number % files]
        record = writer.create_warc_record(
            url, "response", payload=io.BytesIO(body), http_headers=headers, warc_headers_dict=fields
        )
        writer.write_record(record)
    for writer in writers:
        writer.out.close()
    return sum(path.stat().st_size for path in folder.iterdir())


def _copies(pages: Sequence[tuple[str, bytes]], count: int) -> Iterator[tuple[str, bytes]]:
    words = sorted({w for _, body in pages[:200] for w in TAG_OR_WORD.findall(body) if not w.startswith(b"<")})
    for number in range(count):
        url, body = pages[number % len(pages)]
        copy = number // len(pages)
        if copy:
            draw = random.Random(number)
            body = TAG_OR_WORD.sub(partial(_changed, words=words, draw=draw), body)
            url = f"{url}{'&' if '?' in url else '?'}copy={copy}"
        yield url, body


def _changed(found: re.Match[bytes], words: Sequence[bytes], draw: random.Random) -> bytes:
    if found[0].startswith(b"<") or draw.random() >= CHANGED:
        return found[0]
    return draw.choice(words)

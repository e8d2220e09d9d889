"""WARC and ARC files of mutated records, through the crawl and into extract: each is a page or a ledger row there.

Every record holds a word of its own in its address, its id and its body. It is looked for in what extract reads, in
the ledger (by address, id, or the byte that a row names), and among the records that are no pages.
"""

from __future__ import annotations

import gzip
import re
from bisect import bisect_right
from collections import Counter
from pathlib import Path
from random import Random

import zstandard
from fastwarc.warc import ArchiveIterator, WarcRecordType

from tasks.contracts.errors import InputError
from tasks.contracts.ledger import LedgerRow, read_ledger
from tasks.crawl.archives import take_archives
from tasks.crawl.warc_reader import _NEXT_RECORD
from tasks.extract.warc_pages import read_pages
from tests.fuzz.harness import Wrong, checked
from tests.fuzz.mutate import mutate, mutate_head, with_length

RECORDS = 200
WORD = re.compile(rb"w[0-9a-f]{16}w")
AT = re.compile(r", byte (\d+):")
DATES = (b"2026", b"2026-01", b"2026-01-02T03:04Z", b"20260102030405", b"2026-01-02 03:04:05", b"2026-13-40T99:99:99Z",
         b"0001-01-01T00:00:00+23:59", b"9999-12-31T23:59:59-23:59", b"2026-01-02T03:04:05.123456789Z", b"", b"now",
         b"Fri, 02 Jan 2026 03:04:05 GMT", b"2026-01-02T03:04:60Z", "٢٠٢٦-01-02T03:04:05Z".encode())  # fmt: skip
URIS = (b"http://[::1/x", b"http://h.example:99999/", b"http://h.example:x/", b"<http://h.example/>", b"", b"/x", b"x",
        b"http://h.example/a b", "http://bücher.example/ü".encode(), b"http://\xff\xfe/", b"http://h.example/\xff",
        b"dns:h.example", b"urn:x:y", b"http://", b"http://user:pw@h.example/", b"HTTP://H.EXAMPLE/", b"http://h/\0",
        b"http://[v1.x]/", "http://a\u2100b/".encode(), b"http://h.example/" + b"a" * 9000)  # fmt: skip
VALUES: dict[bytes, tuple[bytes, ...]] = {
    b"warc-type": (b"RESPONSE", b"Response", b"resource", b"revisit", b"request", b"metadata", b"continuation",
                   b"monkeys", b"", b"response response", b"response\0"),
    b"warc-date": DATES,
    b"warc-target-uri": URIS,
    b"warc-record-id": (b"", b"x", b"urn:uuid:1", b"<urn:uuid:1>", b"<a b>", b"\xff", b"<" + b"i" * 3000 + b">"),
    b"content-length": (b"", b"-1", b"x", b"0", b"0x10", b"1_0", b"+5", b"1e3", b"99999999999",
                        b"9" * 5000, "\u00b2".encode()),
    b"content-type": (b"", b"application/http", b"APPLICATION/HTTP; msgtype=response", b"text/html", b"text/dns",
                      b"application/http;msgtype=request", b"application/vnd.headwater.evidence+json"),
}  # fmt: skip
HTTP_VALUES: dict[bytes, tuple[bytes, ...]] = {
    b"content-type": (b"text/html;charset=", b"text/html;charset=\0", b"text/html; charset=utf-7", b"", b"TEXT/HTML",
                      b"text/html, text/plain", b"\xff", b"unknown/unknown", b"application/xml",
                      b"text/html;charset=gbk",
                      b"text/html;charset=iso-2022-jp", b"text/html;charset=euc-jp",
                      b"text/html;charset=x-user-defined"),
    b"content-encoding": (b"gzip", b"br", b"zstd", b"deflate", b"x", b"gzip, " * 20, b"identity", b"br, gzip"),
    b"transfer-encoding": (b"chunked", b"CHUNKED", b"gzip, chunked", b"x"),
}  # fmt: skip
VERSIONS = (b"WARC/0.17", b"WARC/0.18", b"WARC/1.0", b"WARC/1.1", b"WARC/1.2", b"WARC/2.0", b"warc/1.0", b"WARC/1.0 ",
            b"WARC/10.10")  # fmt: skip


def make_record(rng: Random, word: bytes) -> bytes:
    """Return a record with some mutations, or none."""
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nServer: x\r\nContent-Encoding: identity\r\n\r\n"
    )
    body = b"<!doctype html><html><body><p>" + word + b" runs to the sea.</p>\n</body></html>\n"
    kind = rng.random()
    if kind < 0.2:
        head = mutate_head(rng, head, HTTP_VALUES)
    elif kind < 0.25:
        head = head.replace(b"Server: x", b"Transfer-Encoding: chunked")
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    block = head + body
    segment = b"WARC-Segment-Number: 1\r\n" if rng.random() < 0.01 else b""
    warc = (
        rng.choice(VERSIONS) + b"\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:x:" + word + b">\r\n"
        b"WARC-Date: 2026-01-02T03:04:05Z\r\nWARC-Target-URI: http://h.example/" + word + b"\r\n" + segment +
        b"Content-Type: application/http; msgtype=response\r\nContent-Length: %d\r\n\r\n" % len(block)
    )  # fmt: skip
    if rng.random() < 0.7:
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            warc = mutate_head(rng, warc, VALUES) if warc.endswith(b"\r\n\r\n") and warc.count(b"\r\n") > 3 else warc
    if rng.random() < 0.1:
        warc = with_length(warc, max(0, len(block) + rng.choice((-30, -2, -1, 1, 2, 4, 6, 30, 300, 10**6))))
    record = warc + block + b"\r\n\r\n"
    match rng.randrange(40):
        case 0:
            record = record.replace(b"\r\n", b"\n")
        case 1:
            record = record[: rng.randrange(1, len(record))]
        case 2:
            record += rng.choice(
                (b"garbage\r\n", b"\r\n\r\n", b"\0" * 30, b"WARC/1.0", b"WARC/1.0\r\n", b"\x1f\x8b\x08")
            )
        case 3:
            record = record.rstrip(b"\r\n") + rng.choice((b"", b"\n", b"\r\n", b"\n\n", b"\r\n\r\n\r\n"))
        case 4:
            record = mutate(rng, record)
    return record


def make_file(rng: Random, records: list[bytes]) -> tuple[bytes, list[int]]:
    """Return a file of records in one of the usual packings, and where each of them begins as rows name it."""
    shape = rng.randrange(7)
    content = b""
    starts: list[int] = []
    if shape == 0:
        for record in records:
            starts.append(len(content))
            content += record
    elif shape == 6:
        # As it comes of files put behind each other: runs of plain records, runs of members.
        packed = rng.random() < 0.5
        for record in records:
            starts.append(len(content))
            content += gzip.compress(record, compresslevel=1, mtime=0) if packed else record
            packed ^= rng.random() < 0.1
    else:
        step = {1: 1, 2: 3, 3: len(records), 4: 1, 5: 3}[shape]
        pack = gzip_member if shape < 4 else zstandard.ZstdCompressor(level=1, write_checksum=True).compress
        for at in range(0, len(records), step):
            group = records[at : at + step]
            starts += [len(content)] * len(group)
            content += pack(b"".join(group))
    if rng.random() < 0.05:
        content = content[: len(content) - rng.randrange(1, 40)]
    return content, starts


def gzip_member(content: bytes) -> bytes:
    return gzip.compress(content, compresslevel=1, mtime=0)


def batch(rng: Random, folder: Path, records: int = RECORDS) -> int:
    """Read one file of mutated records."""
    words = [b"w%016xw" % rng.getrandbits(64) for _ in range(records)]
    # A first one that is whole: a file without any record is the person's mistake, and said so.
    made = [_whole(words[0]), *(make_record(rng, word) for word in words[1:])]
    # Of a record that was cut off before its word nothing can be looked for.
    known = {word for word, record in zip(words, made, strict=True) if word in record}
    content, starts = make_file(rng, made)
    path = folder / "mutated.warc.gz"
    path.write_bytes(content)
    with checked(content):
        try:
            counts, _ = take_archives([str(path)], megabytes=0.05, output=folder / "out")
        except InputError as error:
            raise Wrong(f"the run stopped: {error}", content) from error
        rows = list(read_ledger(folder / "out" / "dropped" / "part-00000.parquet"))
        pages: list[bytes | None] = []
        other: set[bytes] = set()
        for part in sorted((folder / "out").glob("part-*")):
            for page in read_pages(part, 1_000_000):
                pages.append(_word(known, page.url.encode(), page.record_id.encode(), page.body))
            with part.open("rb") as stream:
                for record in ArchiveIterator(stream, record_types=WarcRecordType.any_type, parse_http=False):
                    if record.record_type not in (WarcRecordType.response, WarcRecordType.resource):
                        other.add(_word(known, str(list(record.headers.items())).encode(), record.reader.read()) or b"")
    drops = [row for row in rows if row.action == "drop"]
    if counts.out != len(pages) or counts.in_ != counts.out + len(drops):
        raise Wrong(f"crawl kept {counts.out}, extract reads {len(pages)}; {counts.in_} in, {len(drops)} rows", content)
    twice = [word for word, number in Counter(pages).items() if word and number > 1]
    if twice:
        raise Wrong(f"{len(twice)} records became two pages: {twice[:3]}", content)
    read = {word for word in pages if word} | other
    seen = read | _named(rows, words, starts)
    spoken = [int(at[1]) for row in drops if (at := AT.search(row.detail or ""))]
    good = [start for word, start in zip(words, starts, strict=True) if word in read]
    lost = [
        word
        for word, start, record in zip(words, starts, made, strict=True)
        if word in known
        and word not in seen
        # Without a first line it is no record but bytes: the row of the place before it speaks for them.
        and (_NEXT_RECORD.match(record) or _last(spoken, start) < _last(good, start))
    ]
    # Records of one member share its offset: a row without an address speaks for one of them.
    damaged = [row for row in rows if row.rule == "damaged_record"]
    nameless = sum(1 for row in damaged if _word(known, f"{row.url} {row.record_id}".encode()) is None)
    nameless += sum(1 for word in pages if word is None)
    if len(lost) > nameless or (lost and len(set(starts)) == len(starts) and not any(word is None for word in pages)):
        raise Wrong(f"{len(lost)} records are in no page and no row: {lost[:3]}", content)
    return records


def _last(offsets: list[int], start: int) -> int:
    return max((offset for offset in offsets if offset <= start), default=-1)


def _whole(word: bytes) -> bytes:
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>" + word
    return (
        b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:x:" + word + b">\r\n"
        b"WARC-Date: 2026-01-02T03:04:05Z\r\nWARC-Target-URI: http://h.example/" + word + b"\r\n"
        b"Content-Type: application/http; msgtype=response\r\nContent-Length: %d\r\n\r\n%s\r\n\r\n"
        % (len(block), block)
    )


def _word(known: set[bytes], *contents: bytes) -> bytes | None:
    return next((word for content in contents for word in WORD.findall(content) if word in known), None)


def _named(rows: list[LedgerRow], words: list[bytes], starts: list[int]) -> set[bytes]:
    """Return the words of the records that rows speak of, by address, id or place."""
    named: set[bytes] = set()
    alone = len(set(starts)) == len(starts)
    for row in rows:
        named |= set(WORD.findall(f"{row.url} {row.record_id}".encode()))
        at = AT.search(row.detail or "")
        if at and alone:
            first = int(at[1])
            passed = re.search(r": (\d+) bytes", row.detail or "")
            last = first + (int(passed[1]) if passed else 1)
            named |= {word for word, start in zip(words, starts, strict=True) if first <= start < last}
            named.add(words[bisect_right(starts, first) - 1])
    return named

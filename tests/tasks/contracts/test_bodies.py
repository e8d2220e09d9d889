"""Bodies as servers send them and archives keep them: decoded where they are coded, as far as they go."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard

from tasks.contracts import bodies
from tasks.contracts.bodies import ERRORS, Body, opened
from tests.hostile.growth import MOST_GROWTH, growth

HTML = b"<!doctype html><html><body>" + b"".join(
    b"<p>River %d of %d runs to the sea.</p>" % (n, n * 7919 % 1009) for n in range(9000)
)
PACKED = gzip.compress(HTML, mtime=0)
LIMIT = 10_000_000


def bare_deflate(content: bytes) -> bytes:
    compressor = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(content) + compressor.flush()


def frames(content: bytes) -> bytes:
    """Three zstd frames, one skippable one and an empty one between them."""
    third = len(content) // 3
    first, second, last = (
        zstd(content[start:stop]) for start, stop in ((0, third), (third, 2 * third), (2 * third, None))
    )
    return first + b"\x5e\x2a\x4d\x18\x03\0\0\0abc" + second + zstd(b"") + last


def zstd(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


CODED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress), "x-gzip": ("X-Gzip", gzip.compress), "br": ("br", brotli.compress),
    "zstd": ("zstd", zstd),
    "zlib": ("deflate", zlib.compress), "bare deflate": ("deflate", bare_deflate),
    "gzip members": ("gzip", lambda c: gzip.compress(c[:1000]) + gzip.compress(b"") + gzip.compress(c[1000:])),
    "zstd frames": ("zstd", frames), "gzip, then br": ("gzip, br", lambda c: brotli.compress(gzip.compress(c))),
    "three": ("deflate, gzip, zstd", lambda c: zstd(gzip.compress(zlib.compress(c)))),
}  # fmt: skip


def chunked(content: bytes, size: int = 1000) -> bytes:
    parts = [content[start : start + size] for start in range(0, len(content), size)]
    return b"".join(b'%X;ext="a"\r\n%s\r\n' % (len(part), part) for part in parts) + b"0\r\nTrailer: x\r\n\r\n"


@pytest.mark.parametrize("name", CODED)
def test_all_of_a_body_is_read(name: str) -> None:
    coding, encode = CODED[name]
    assert opened(encode(HTML), [("Content-Encoding", coding)], LIMIT) == Body(HTML)
    assert opened(
        chunked(encode(HTML)), [("transfer-encoding", "chunked"), ("content-encoding", coding)], LIMIT
    ) == Body(HTML)
    separate = [("Content-Encoding", one) for one in coding.split(",")]
    assert opened(encode(HTML), separate, LIMIT) == Body(HTML), "several fields of one name are one list"
    assert opened(encode(HTML), [("Transfer-Encoding", f"{coding}, chunked"), ("A", "b")], LIMIT).content == HTML


@pytest.mark.parametrize("name", CODED)
@pytest.mark.parametrize("left", [0.99, 0.9, 0.5])
def test_a_body_that_ends_early_is_what_it_has(name: str, left: float) -> None:
    coding, encode = CODED[name]
    whole = encode(HTML)
    body = opened(whole[: int(len(whole) * left)], [("Content-Encoding", coding)], LIMIT)
    assert HTML.startswith(body.content)
    assert len(body.content) > (left - 0.4) * len(HTML), "a block of zstd, 128 KiB, is there or not"
    assert "ends early" in body.cut


@pytest.mark.parametrize("name", ["gzip", "zlib", "br", "gzip members"])
def test_a_damaged_body_is_what_stands_before_the_damage(name: str) -> None:
    coding, encode = CODED[name]
    whole = encode(HTML)
    at = len(whole) // 2
    body = opened(whole[:at] + b"\xff" * 40 + whole[at + 40 :], [("Content-Encoding", coding)], LIMIT)
    assert body.content[: len(HTML) // 3] == HTML[: len(HTML) // 3]
    assert body.cut
    if coding == "gzip":  # the checksum is wrong, the text is there
        body = opened(whole[:-8] + b"\0" * 8, [("Content-Encoding", coding)], LIMIT)
        assert (body.content, "is damaged" in body.cut) == (HTML, True)


def test_what_stands_behind_the_last_member_is_left_out() -> None:
    for coding, encode in (CODED[name] for name in ("gzip", "zstd", "zlib", "br")):
        for more in (b"\0" * 9, b"garbage"):
            assert opened(encode(HTML) + more, [("Content-Encoding", coding)], LIMIT) == Body(HTML)


PLAIN = [HTML, b"\n\t  " * 3000 + HTML, b"<!--" + b" a comment" * 900 + b"-->" + HTML, b"\xef\xbb\xbf" + HTML,
         b"<?xml version='1.0'?>\n" + HTML, b"<meta charset=utf-8><p>x", b"<h1>x</h1>", b"<p class=a>x",
         b"Notice: <b>x</b>",
         b"\xff\xfe" + HTML.decode().encode("utf-16-le"), HTML.decode().encode("utf-16-be"),
         "<p>река ①".encode("cp932", "ignore")]  # fmt: skip


@pytest.mark.parametrize("coding", [
    "gzip", "deflate", "br", "zstd", "gzip, gzip", "br, gzip", "identity", "none", "utf-8", "text/html", "compress", "",
])  # fmt: skip
@pytest.mark.parametrize("number", range(len(PLAIN)))
def test_a_coding_that_the_body_belies_is_passed_over(coding: str, number: int) -> None:
    assert opened(PLAIN[number], [("Content-Encoding", coding)], LIMIT) == Body(PLAIN[number])


@pytest.mark.parametrize(("coding", "body"), [
    ("gzip, gzip", PACKED), ("gzip, br", PACKED), ("br, gzip", PACKED),
    ("gzip, none", PACKED), ("gzip, br", brotli.compress(HTML)),
])  # fmt: skip
def test_one_of_several_codings_that_is_not_there_is_passed_over(coding: str, body: bytes) -> None:
    assert opened(body, [("Content-Encoding", coding)], LIMIT) == Body(HTML)


@pytest.mark.parametrize(("coding", "body"), [
    ("gzip", b"\x1f\x8b\x08\0\xff\xff"), ("br", b"not brotli"), ("zstd", b"\x28\xb5\x2f\xfd\xff\xff\xff"),
    ("deflate", b"\0\1"),
    ("compress", b"\x1f\x9d\x90\0\1"), ("gzip", b"plain text, no markup"), (", ".join(["gzip"] * 9), HTML),
])  # fmt: skip
def test_what_cannot_be_read_is_an_error(coding: str, body: bytes) -> None:
    try:
        read = opened(body, [("Content-Encoding", coding)], LIMIT)
    except ERRORS:
        return
    assert (read.content, "ends early" in read.cut) == (b"", True)


@pytest.mark.parametrize(("payload", "content", "cut"), [
    (chunked(HTML), HTML, ""), (chunked(HTML)[:-19], HTML, "last chunk"),
    (chunked(HTML, 5000)[:5036], HTML[:5006], "last chunk"),
    (chunked(HTML, 5000)[:400], HTML[: 400 - len(b'1388;ext="a"\r\n')], "last chunk"), (HTML, HTML, ""),
    (b"5\nhello\n0\n", b"hello", ""), (b" 5 \r\nhello\r\n0\r\n\r\n", b"hello", ""), (b"0\r\n\r\n", b"", ""),
    (b"", b"", ""),
    (b"5\r\nhelloxyz\r\n", b"hello", "last chunk"), (b"-5\r\nhello", b"-5\r\nhello", ""),
    (b"0x5\r\nhello", b"0x5\r\nhello", ""),
    (b"1_0\r\nhello", b"1_0\r\nhello", ""), (b"5 hello", b"5 hello", ""),
])  # fmt: skip
def test_chunks(payload: bytes, content: bytes, cut: str) -> None:
    body = opened(payload, [("Transfer-Encoding", "chunked")], LIMIT)
    assert body.content == content
    assert cut in body.cut if cut else body.cut == ""


@pytest.mark.parametrize(("length", "cut"), [
    (len(HTML), False), (len(HTML) + 5, True), (len(HTML) - 5, False), ("x", False), ("", False), ("9" * 5000, True),
])  # fmt: skip
def test_bytes_that_content_length_promises(length: int | str, cut: bool) -> None:
    body = opened(HTML, [("Content-Length", str(length))], LIMIT)
    assert (body.content, bool(body.cut)) == (HTML, cut)
    # Archives that decode keep the header of the coded body.
    for field in (("Content-Encoding", "gzip"), ("Transfer-Encoding", "chunked")):
        assert opened(HTML, [("Content-Length", str(len(HTML) + 5)), field], LIMIT) == Body(HTML)


@pytest.mark.parametrize("name", CODED)
def test_no_more_comes_out_than_is_allowed(name: str) -> None:
    coding, encode = CODED[name]
    for limit in (1, 1000, len(HTML) - 1):
        assert opened(encode(HTML), [("Content-Encoding", coding)], limit).more
    assert not opened(encode(HTML), [("Content-Encoding", coding)], len(HTML)).more
    bomb = encode(bytes(50_000_000))
    assert opened(bomb, [("Content-Encoding", coding)], 1_000_000).more
    assert opened(HTML, [], 10) == Body(HTML[:10], more=True)


# Without a time in them: a test has the same name in every process.
UNITS = [
    gzip.compress(b"", mtime=0),
    zstd(b""),
    b"\x50\x2a\x4d\x18\0\0\0\0",
    gzip.compress(b"x" * 9, mtime=0),
]


@pytest.mark.parametrize("unit", UNITS)
def test_many_members_take_linear_time(unit: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "MOST_STREAMS", 1 << 30)
    coding = "gzip" if unit.startswith(b"\x1f\x8b") else "zstd"
    assert growth(lambda body: bodies.decompressed(body, coding, LIMIT), lambda n: unit * n, 1000) < MOST_GROWTH
    monkeypatch.undo()
    assert "not read" in bodies.decompressed(unit * 10_001, coding, LIMIT).cut

"""Reading WARC files as they are found: verbatim where possible, never a crash, nothing lost silently."""

import gzip
import hashlib
import io
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.crawl.streams import Damage, compress
from tasks.crawl.warc_reader import Record, read_records


def record(body: bytes = b"hello", kind: str = "response", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    identity = hashlib.sha256(kind.encode() + body).hexdigest()
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:x:{identity}>\r\nWARC-Date: 2026-01-02T03:04:05Z\r\n"
        f"WARC-Target-URI: http://a.example/\r\nContent-Length: {size}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def read(content: bytes) -> tuple[list[Record], list[Damage]]:
    found = list(read_records(io.BytesIO(content)))
    return [f for f in found if isinstance(f, Record)], [f for f in found if isinstance(f, Damage)]


def test_a_member_of_one_record_is_copied_byte_for_byte() -> None:
    members = [gzip.compress(record(bytes([65 + n]) * 5000), compresslevel=n) for n in (1, 5, 9)]
    records, damages = read(b"".join(members))
    assert [r.member for r in records] == members
    assert damages == []


def test_plain_files_and_members_of_many_records_become_one_member_a_record() -> None:
    raw = [record(b"one"), record(b"two", "request"), record(b"three")]
    for content in (b"".join(raw), gzip.compress(b"".join(raw))):
        records, damages = read(content)
        assert [gzip.decompress(r.member) for r in records] == raw
        assert [r.kind for r in records] == ["response", "request", "response"]
        assert damages == []


def test_a_truncated_tail_costs_the_last_record_only() -> None:
    whole, cut = gzip.compress(record(b"x" * 3000)), gzip.compress(record(bytes(range(256)) * 40))
    records, damages = read(whole + cut[: len(cut) // 2])
    assert [r.member for r in records] == [whole]
    [damage] = damages
    assert damage.offset == len(whole)
    assert damage.detail.endswith("the file ends inside a gzip member")


def test_garbage_between_members_is_reported_with_its_offset() -> None:
    first, second = gzip.compress(record(b"1")), gzip.compress(record(b"2"))
    records, damages = read(first + b"garbage!" + second)
    assert [r.member for r in records] == [first, second]
    assert [(d.offset, d.detail) for d in damages] == [(len(first), "8 bytes that are no gzip member")]


def test_a_damaged_member_does_not_take_the_next_one_with_it() -> None:
    first, second, third = (gzip.compress(record(bytes([n]) * 400 + b"abc" * n)) for n in (1, 2, 3))
    broken = bytearray(second)
    broken[-6] ^= 0xFF
    records, damages = read(first + bytes(broken) + third)
    assert third in [r.member for r in records]
    assert first in [r.member for r in records]
    assert damages


def test_garbage_between_plain_records() -> None:
    records, damages = read(record(b"1") + b"not a record at all\n" + record(b"2"))
    assert len(records) == 2
    assert len(damages) == 1


def test_a_length_that_reaches_into_the_next_record_keeps_the_next_record() -> None:
    records, damages = read(record(b"short", length=60) + record(b"next"))
    assert [gzip.decompress(r.member) for r in records] == [record(b"next")]
    assert len(damages) == 1


def test_a_length_that_is_too_small_keeps_what_it_says() -> None:
    records, damages = read(record(b"0123456789", length=4) + record(b"next"))
    assert len(records) == 2
    assert "behind" in damages[0].detail


MEMBER = gzip.compress(b"<p>the body of a page", mtime=0)


@pytest.mark.parametrize("between", [b"", b"garbage! ", MEMBER, b"\x1f\x8b\x08"])
@pytest.mark.parametrize("packed", list(itertools.product((True, False), repeat=4)))
def test_members_and_plain_records_in_one_file_are_all_read(packed: tuple[bool, ...], between: bytes) -> None:
    raw = [record(bytes([65 + n]) * 300) for n in range(len(packed))]
    pieces = [gzip.compress(one) if pack else one for one, pack in zip(raw, packed, strict=True)]
    records, damages = read(between.join(pieces))
    assert [gzip.decompress(one.member) for one in records] == raw
    assert bool(damages) == bool(between)


@pytest.mark.parametrize("cut", [60, 200])
def test_a_plain_record_that_is_cut_does_not_take_the_members_after_it_with_it(cut: int) -> None:
    raw = [record(bytes([65 + n]) * 300) for n in range(4)]
    broken = raw[0][:cut] if cut < 100 else record(b"A", length=cut)
    records, damages = read(raw[3] + broken + gzip.compress(raw[1]) + gzip.compress(raw[2]) + raw[0])
    assert [gzip.decompress(one.member) for one in records] == [raw[3], raw[1], raw[2], raw[0]]
    assert damages


def test_a_record_that_a_wrong_length_swallows_is_named() -> None:
    odd = record(b"2").replace(b"WARC/1.0\r\n", b"WARC/1.0\r\n  \r\n").replace(b"//a.example", b"//b.example")
    content = record(b"1", length=100) + odd + record(b"3")
    _, damages = read(content)
    assert "http://b.example/" in [one.url for one in damages]


@pytest.mark.parametrize("swallowed", [1, 3])
def test_members_that_a_wrong_length_swallows_are_named(swallowed: int) -> None:
    members = [gzip.compress(record(b"%d" % n).replace(b"//a.example", b"//m%d.example" % n)) for n in range(4)]
    inside = b"1\r\n\r\n" + b"".join(members[:swallowed])
    records, damages = read(record(b"1", length=len(inside))[: -len(b"1\r\n\r\n")] + inside + members[3])
    assert [one.url for one in damages if one.kept] == [f"http://m{n}.example/" for n in range(swallowed)]
    assert len(records) == 2


def test_folded_and_odd_cased_headers_are_understood() -> None:
    raw = b"warc/1.0\r\nWARC-Type:\r\n\tRESPONSE\r\nwarc-TARGET-uri:\n http://a.example/\r\n"
    raw += b"content-length: \r\n 3\r\n\r\nabc\r\n\r\n"
    records, damages = read(raw)
    assert [r.kind for r in records] == ["response"]
    assert damages == []


def test_an_arc_file_becomes_warc_records() -> None:
    body = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>x</p>"
    version = b"1 0 Org\nURL IP-address Archive-date Content-type Archive-length\n"
    arc = b"filedesc://a.arc 0.0.0.0 20140301000000 text/plain %d\n%s\n" % (len(version), version)
    arc += b"http://a.example/ 1.2.3.4 20140301000001 text/html %d\n%s\n" % (len(body), body)
    records, _ = read(arc)
    assert [r.kind for r in records] == ["warcinfo", "response"]
    assert b"WARC-Target-URI: http://a.example/" in gzip.decompress(records[1].member)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_crash_the_reader(content: bytes) -> None:
    read(content)
    read(b"\x1f\x8b\x08" + content)
    read(b"WARC/1.0\r\n" + content)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=6), st.data())
def test_damage_in_one_member_never_loses_the_members_before_it(bodies: list[bytes], data: st.DataObject) -> None:
    members = [compress(record(body)) for body in bodies]
    hit = data.draw(st.integers(0, len(members) - 1))
    broken = bytearray(members[hit])
    broken[data.draw(st.integers(0, len(broken) - 1))] ^= data.draw(st.integers(1, 255))
    records, _ = read(b"".join([*members[:hit], bytes(broken), *members[hit + 1 :]]))
    assert [r.member for r in records][:hit] == members[:hit]

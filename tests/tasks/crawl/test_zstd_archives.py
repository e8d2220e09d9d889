"""Archives in Zstandard (`.warc.zst`, IIPC 1.0): with and without a dictionary, whole and damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
import zstandard

from tasks.contracts.errors import InputError
from tasks.contracts.ledger import LedgerRow, read_ledger
from tasks.contracts.manifest import Counts
from tasks.crawl.archives import take_archives
from tasks.extract.warc_pages import Page, read_pages
from tests.hostile.growth import MOST_GROWTH, growth
from tests.tasks.crawl.test_canonical import record

PAGES = 40
EXTENSION = b"\x5a\x2a\x4d\x18\x05\0\0\0abcde"


def warc(number: int) -> bytes:
    text = " ".join(f"river {number * n % 97} runs to the sea {n}" for n in range(60))
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html><body><p>" + text.encode()
    name: dict[str, str | None] = {
        "WARC-Record-ID": f"<urn:x:{number}>",
        "WARC-Target-URI": f"http://a.example/{number}",
    }
    return record(name, block=block)


RECORDS = [warc(number) for number in range(PAGES)]
DICTIONARY = zstandard.train_dictionary(4096, [warc(number) for number in range(1000, 3000)])


def frame(content: bytes, dictionary: zstandard.ZstdCompressionDict | None = None) -> bytes:
    compressor = zstandard.ZstdCompressor(level=3, dict_data=dictionary, write_checksum=True, write_content_size=True)
    return compressor.compress(content)


def dictionary_frame(content: bytes) -> bytes:
    return b"\x5d\x2a\x4d\x18" + len(content).to_bytes(4, "little") + content


def with_dictionary(parts: list[bytes], *, compressed: bool) -> bytes:
    raw = DICTIONARY.as_bytes()
    return dictionary_frame(frame(raw) if compressed else raw) + b"".join(frame(part, DICTIONARY) for part in parts)


def cut(records: list[bytes], size: int) -> list[bytes]:
    whole = b"".join(records)
    return [whole[start : start + size] for start in range(0, len(whole), size)]


FILES = {
    "a frame a record": b"".join(map(frame, RECORDS)),
    "a raw dictionary": with_dictionary(RECORDS, compressed=False),
    "a compressed dictionary": with_dictionary(RECORDS, compressed=True),
    "records in several frames": with_dictionary(cut(RECORDS, 700), compressed=True),
    "one frame": frame(b"".join(RECORDS)),
    "without sizes": zstandard.ZstdCompressor(write_content_size=False).compress(b"".join(RECORDS)),
    "extension frames": frame(b"") + EXTENSION.join(frame(one) + EXTENSION + frame(b"") for one in RECORDS) + EXTENSION,
    "two dictionaries": with_dictionary(RECORDS[:9], compressed=True) + with_dictionary(RECORDS[9:], compressed=False),
    "behind others": b"".join(RECORDS[:3]) + b"".join(map(frame, RECORDS[3:])),
}


def taken(content: bytes, folder: Path) -> tuple[Counts, list[Page], list[LedgerRow]]:
    path = folder / "a.warc.zst"
    path.write_bytes(content)
    counts, _ = take_archives([str(path)], megabytes=1, output=folder / "out")
    pages = [page for part in sorted((folder / "out").glob("part-*")) for page in read_pages(part, 1_000_000)]
    return counts, pages, list(read_ledger(folder / "out" / "dropped" / "part-00000.parquet"))


@pytest.mark.parametrize("name", FILES)
def test_every_record_is_read(name: str, tmp_path: Path) -> None:
    counts, pages, rows = taken(FILES[name], tmp_path)
    assert [page.record_id for page in pages] == [f"<urn:x:{number}>" for number in range(PAGES)]
    assert all(page.body.startswith(b"<html><body><p>river") for page in pages)
    assert rows == []
    assert counts.in_ == PAGES


@pytest.mark.parametrize(
    "name", ["a frame a record", "a raw dictionary", "a compressed dictionary", "two dictionaries"]
)
def test_a_damaged_frame_costs_its_own_record(name: str, tmp_path: Path) -> None:
    content = bytearray(FILES[name])
    starts = [at for at in range(len(content)) if content.startswith(b"\x28\xb5\x2f\xfd", at)][-20:]
    for at in range(starts[5] + 20, starts[6] - 20):
        content[at] ^= 0x55
    counts, pages, rows = taken(bytes(content), tmp_path)
    assert len(pages) == PAGES - 1
    (row,) = rows
    assert (row.action, row.rule) == ("drop", "damaged_record")
    assert f"byte {starts[5]}: damaged zstd frame" in (row.detail or "")
    assert counts.in_ == PAGES


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("left", [0.97, 0.7])
def test_a_file_that_breaks_off_gives_its_whole_records(name: str, left: float, tmp_path: Path) -> None:
    size = int(len(FILES[name]) * left)
    if name in ("one frame", "without sizes"):
        with pytest.raises(InputError, match="no page"):
            taken(FILES[name][:size], tmp_path)
        return
    counts, pages, rows = taken(FILES[name][:size], tmp_path)
    assert [page.record_id for page in pages] == [f"<urn:x:{number}>" for number in range(len(pages))]
    assert PAGES * (left - 0.5) < len(pages) < PAGES
    assert counts.in_ == counts.out + len(rows)
    assert len(rows) <= 1


def test_what_is_no_frame_is_passed_over_and_said(tmp_path: Path) -> None:
    frames = list(map(frame, RECORDS))
    counts, pages, rows = taken(frames[0] + b"garbage" * 9 + b"".join(frames[1:]), tmp_path)
    assert len(pages) == PAGES
    assert [(row.action, row.rule) for row in rows] == [("drop", "damaged_record")]
    assert counts.in_ == PAGES + 1


@pytest.mark.parametrize("start", [
    dictionary_frame(b"no dictionary"), dictionary_frame(frame(b"no dictionary")), dictionary_frame(b""),
    dictionary_frame(b"\x28\xb5\x2f\xfd\xff\xff"),
    dictionary_frame(frame(bytes(100_000_000))),
])  # fmt: skip
def test_a_dictionary_that_is_none_costs_the_frames_that_need_it(start: bytes, tmp_path: Path) -> None:
    counts, pages, rows = taken(start + frame(RECORDS[0], DICTIONARY) + frame(RECORDS[1]), tmp_path)
    assert [page.record_id for page in pages] == ["<urn:x:1>"]
    assert rows
    assert counts.in_ == counts.out + sum(row.action == "drop" for row in rows)


@pytest.mark.parametrize(
    "unit", [frame(RECORDS[0]), frame(b""), EXTENSION, b"\x28\xb5\x2f\xfd", frame(RECORDS[0])[:60]]
)
def test_time_is_linear(unit: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.warc.zst"
    numbers = iter(range(100))

    def work(content: bytes) -> None:
        path.write_bytes(frame(RECORDS[0]) + content)
        take_archives([str(path)], megabytes=64, output=tmp_path / str(next(numbers)))

    assert growth(work, lambda n: unit * n, 300) < MOST_GROWTH

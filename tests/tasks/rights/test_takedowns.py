from pathlib import Path

import pytest

from tasks.contracts.errors import InputError
from tasks.contracts.urls import canonical_url
from tasks.rights.takedowns import (
    LIST,
    Fingerprint,
    Row,
    Takedowns,
    add_fingerprints,
    append_row,
    read_rows,
    read_takedowns,
    text_sha256,
)


def row(number: int, kind: str = "url", value: str = "https://a.example/x") -> Row:
    return Row(id=f"{number:016x}", kind=kind, value=value, reason="asked", date="2026-01-31")


def covered(takedowns: Takedowns, **facts: str | None) -> tuple[str, str] | None:
    page: dict[str, str | None] = {
        "url": "https://b.example/",
        "host": "b.example",
        "payload_digest": None,
        "text": "t",
    }
    return takedowns.covers(**{**page, **facts})  # type: ignore[arg-type]


def test_an_empty_list_covers_nothing(workspace: Path) -> None:
    assert not read_takedowns()
    assert covered(read_takedowns()) is None


def test_a_withdrawn_tombstone_counts_no_more_and_its_row_stays(workspace: Path) -> None:
    append_row(row(1))
    append_row(row(2, "host", "b.example"))
    add_fingerprints([Fingerprint(tombstone=row(1).id, text_sha256="0" * 64)])
    append_row(row(1, "withdrawal", ""))
    assert [one.value for one in read_takedowns().tombstones] == ["b.example"]
    assert not read_takedowns().fingerprints
    assert len(read_rows()) == 3


def test_other_spellings_and_captures_of_a_page_are_covered() -> None:
    takedowns = Takedowns((row(1, value="https://A.example/x?b=2&a=1"),))
    for url in ("http://a.example/x?a=1&b=2", "https://a.example:443/x/?a=1&b=2&utm_source=m#top"):
        assert covered(takedowns, url=url) == (row(1).id, "address")
    assert covered(takedowns, url="https://a.example/x") is None


def test_an_address_is_known_in_every_spelling_that_a_crawl_takes_for_it() -> None:
    takedowns = Takedowns((row(1, value="https://bücher.example/a/../b é"), row(2, "host", "*.Straße.example")))
    crawled = canonical_url("https://BÜCHER.example/b%20%c3%a9")
    assert crawled is not None
    assert covered(takedowns, url=crawled) == (row(1).id, "address")
    assert covered(takedowns, host="www.xn--strae-oqa.example") == (row(2).id, "address")


def test_a_host_is_covered_alone_and_a_domain_with_all_under_it() -> None:
    alone = Takedowns((row(1, "host", "a.example"),))
    assert covered(alone, host="A.example") == (row(1).id, "address")
    assert covered(alone, host="sub.a.example") is None
    domain = Takedowns((row(1, "host", "*.a.example"),))
    assert covered(domain, host="x.sub.a.example") == (row(1).id, "address")
    assert covered(domain, host="a.example") == (row(1).id, "address")
    assert covered(domain, host="ba.example") is None


def test_a_copy_is_known_by_payload_and_by_text_after_the_original_is_gone() -> None:
    text = "The text, taken down."
    known = Fingerprint(tombstone=row(1).id, payload_digest="sha1:X", text_sha256=text_sha256(text))
    takedowns = Takedowns((row(1),), (known,))
    assert covered(takedowns, payload_digest="sha1:X") == (row(1).id, "payload")
    assert covered(takedowns, text="  the TEXT, taken\u00a0down.\n") == (row(1).id, "text")
    assert covered(takedowns, text="") is None


def test_fingerprints_are_stored_once_whatever_the_order(workspace: Path) -> None:
    prints = [Fingerprint(tombstone=f"{n:016x}", text_sha256=f"{n:064x}") for n in range(5)]
    assert add_fingerprints(prints) == 5
    before = Path("infra/takedowns.fingerprints.jsonl").read_bytes()
    assert add_fingerprints(reversed(prints)) == 0
    assert Path("infra/takedowns.fingerprints.jsonl").read_bytes() == before


def test_a_line_that_cannot_be_read_stops_the_run(workspace: Path) -> None:
    append_row(row(1))
    with LIST.open("a") as stream:
        stream.write('{"id": "1"}\n')
    with pytest.raises(InputError, match="line 2"):
        read_takedowns()


def test_a_crawl_does_not_take_up_what_was_taken_down() -> None:
    from tasks.crawl.limits import Counted, Limits

    limits = Limits(
        max_pages_per_host=9,
        max_depth=9,
        max_url_length=99,
        max_path_segments=9,
        max_repeated_segments=9,
        max_query_parameters=9,
        max_queries_per_path=9,
        takedowns=Takedowns((row(1), row(2, "host", "b.example"))),
    )
    counted = Counted(limits)
    urls = ["https://a.example/x", "http://a.example/x/?utm_source=1", "https://b.example/", "https://a.example/y"]
    assert [counted.refusal(url, 1) for url in urls] == ["takedown", "takedown", "takedown", None]

"""The trace index finds every row under its names, is made again where its files are new, and trusts no hash."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.history import trace_index as index_module
from flows.history.trace_index import hash_name, index_folder, open_index, stages_with_documents
from flows.proof.trace import Trace, Tracer
from tasks.contracts.document import read_documents
from tasks.contracts.errors import InputError
from tasks.contracts.ledger import LedgerRow, read_ledger, write_ledger
from tasks.contracts.manifest import Counts
from tasks.contracts.urls import canonical_url, host_of
from tests.flows.proof.traced_workspace import PAGES, Traced, make, rewrite_ledger
from tests.planted import plant_manifest


@pytest.fixture
def traced(workspace: Path) -> Traced:
    return make(workspace)


def test_every_row_of_every_stage_stands_under_its_names(traced: Traced) -> None:
    index = open_index(traced.data)
    count = 0
    for stage in index.parts:
        for path in (traced.data / stage / "dropped").glob("*.parquet"):
            for number, row in enumerate(read_ledger(path)):
                names = {"document": row.doc_id, "record": row.record_id, "url": row.url, "survivor": row.survivor_id}
                for kind, name in names.items():
                    found = index.parts[stage].find(kind, [name]) if name else []  # type: ignore[arg-type]
                    places = {(place.file, place.at) for place in found if place.content == "ledger"}
                    assert ((f"dropped/{path.name}", number) in places) == bool(name)
                    count += 1
        for path in (traced.data / stage).glob("part-*.parquet") if stage != "tokenize" else ():
            for number, document in enumerate(read_documents(path)):
                found = index.parts[stage].find("document", [document.doc_id])
                assert (path.name, number) in {(place.file, place.at) for place in found}
                count += 1
    assert count > 60


def test_the_rows_are_right_also_where_all_hashes_are_equal(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    open_index(traced.data)
    expected = [Tracer(open_index(traced.data), traced.data).trace(page.url) for page in PAGES]
    shutil.rmtree(index_folder())
    monkeypatch.setattr("flows.history.trace_index.xxhash.xxh3_64_intdigest", lambda _: 7)
    assert [Tracer(open_index(traced.data), traced.data).trace_names(page.url) for page in PAGES] == expected


def test_only_the_stage_that_ran_again_is_indexed_again(traced: Traced, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "flows.history.trace_index"):
        open_index(traced.data)
        assert caplog.messages == [
            f"trace: indexing {', '.join(stages_with_documents(traced.data))}, whose files are new"
        ]
        before = {path.name for path in index_folder().iterdir()}
        caplog.clear()
        open_index(traced.data)
        assert caplog.messages == []
        rewrite_ledger(traced, "filter", "another_rule")
        found = Tracer(open_index(traced.data), traced.data).trace(PAGES[3].url)
        assert caplog.messages == ["trace: indexing filter, whose files are new"]
    assert isinstance(found, Trace)
    assert found.documents[0].outcome == "dropped by filter: another_rule"
    after = {path.name for path in index_folder().iterdir()}
    assert {name.partition("-")[0] for name in before - after} == {"filter"}
    assert len([name for name in after if name.startswith("filter-")]) == 1


def test_a_part_that_is_damaged_is_made_again(traced: Traced) -> None:
    open_index(traced.data)
    (part,) = index_folder().glob("dedup-*")
    (part / "part.json").write_text("{")
    assert open_index(traced.data).parts["dedup"].description.entries["survivor"] == 1


def test_nothing_is_left_of_an_index_that_could_not_be_made(traced: Traced) -> None:
    (traced.data / "filter" / "part-00000.parquet").write_bytes(b"not Parquet")
    with pytest.raises(InputError, match="cannot be read"):
        open_index(traced.data)
    assert not list(index_folder().glob("*filter*"))


URLS = st.from_regex(r"\A(http|https|HTTP|ftp)://[a-zA-Z0-9.@:-]{1,12}(/[a-zA-Z0-9._~%/-]{0,12})?(\?[a-z=&+%]{0,6})?\Z")


@settings(max_examples=50, deadline=None)
@given(urls=st.lists(URLS, min_size=1, max_size=20))
def test_every_url_stands_under_its_one_spelling(urls: list[str]) -> None:
    changed, places = index_module._other_spellings(pa.array(urls), np.arange(len(urls), dtype=np.uint64))
    others = dict(zip(places.tolist(), changed.to_pylist(), strict=True))
    for number, url in enumerate(urls):
        spelled = canonical_url(url)
        assert spelled is None or url == spelled or others.get(number) == spelled


@settings(max_examples=50, deadline=None)
@given(urls=st.lists(URLS | st.sampled_from(["", "x", "http://[::1]/", "http://u:p@h.example:8/x", None]), min_size=1))
def test_hosts_are_read_as_the_crawl_reads_them(urls: list[str | None]) -> None:
    found = index_module._hosts(pa.array(urls, pa.string())).to_pylist()
    for url, host in zip(urls, found, strict=True):
        assert (host or "") == (host_of(url) if url else "")


def test_rows_are_read_from_any_row_group(workspace: Path) -> None:
    folder = Path("data/filter")
    rows = [LedgerRow(stage="filter", action="drop", rule="r", doc_id=f"{n:032x}", url=f"http://h.example/{n}")
            for n in range(3000)]  # fmt: skip
    write_ledger(folder / "dropped" / "part-00000.parquet", rows)
    plant_manifest(
        folder,
        stage="filter",
        unit="documents",
        params={},
        inputs={},
        counts=Counts(in_=3000, out=0, dropped={"r": 3000}),
    )
    index = open_index(Path("data"))
    assert index.parts["filter"].tally("h.example") == {("drop", "r"): 3000}
    for number in (0, 1023, 1024, 2047, 2999):
        (place,) = index.find("url", [f"http://h.example/{number}"])
        assert index.read([place])[place]["doc_id"] == f"{number:032x}"
    assert len(index.find("host", ["h.example"], 10)) == 10


def test_the_hash_of_a_name_is_fixed() -> None:
    assert hash_name("http://site.example/") == 5655329546893010502

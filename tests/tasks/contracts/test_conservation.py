from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.document import Document, write_documents
from tasks.contracts.durable_files import write_json
from tasks.contracts.errors import ConservationError
from tasks.contracts.ledger import LedgerRow, write_ledger
from tasks.contracts.manifest import MANIFEST_NAME, Counts, Manifest, Unit, commit_manifest, count_rows, read_manifest
from tasks.contracts.warc_index import read_entries
from tests.planted import plant_manifest


def page(name: str) -> Document:
    return Document(doc_id=name, url=f"http://h/{name}", host="h", record_id=name, source="s", text=name)


def drop(name: str | None, rule: str = "short", **more: Any) -> LedgerRow:
    return LedgerRow(stage="x", action="drop", rule=rule, doc_id=name, **more)


def stage(
    data: Path,
    name: str,
    kept: list[str],
    dropped: list[LedgerRow] | None = None,
    *,
    inputs: tuple[str, ...] = (),
    unit: Unit = "documents",
    counts: Counts | None = None,
    checked: bool = True,
) -> Manifest:
    """Write a stage's folder: each of `kept` is a part, a letter a document."""
    folder, rows = data / name, dropped or []
    for part, letters in enumerate(kept):
        write_documents(folder / f"part-{part:05d}.parquet", [page(letter) for letter in letters])
        write_ledger(folder / "dropped" / f"part-{part:05d}.parquet", rows if part == 0 else [])
    rules = [row.rule for row in rows if row.action == "drop"]
    out = sum(map(len, kept))
    counts = counts or Counts(in_=out + len(rules), out=out, dropped={rule: rules.count(rule) for rule in set(rules)})
    commit = commit_manifest if checked else plant_manifest
    return commit(
        folder, stage=name, unit=unit, params={}, inputs={before: data / before for before in inputs}, counts=counts
    )


def test_a_chain_of_stages_that_adds_up_gets_its_manifests(tmp_path: Path) -> None:
    stage(tmp_path, "first", ["abc", "de"])
    stage(tmp_path, "second", ["ac", "de"], [drop("b")], inputs=("first",))
    stage(tmp_path, "third", ["ac", "de"], inputs=("second", "first"))  # `first` only stands beside


@pytest.mark.parametrize("name", ["second", "fifteenth", "anything-at-all"])
def test_what_one_stage_put_out_and_the_next_did_not_take_in_stops_it(tmp_path: Path, name: str) -> None:
    stage(tmp_path, "first", ["abc", "de"])
    with pytest.raises(ConservationError, match=rf"first put out is not what {name} took in") as caught:
        stage(tmp_path, name, ["ab", "de"], inputs=("first",))
    assert (caught.value.expected, caught.value.found) == ("5 (out of first)", f"4 (into {name})")
    assert caught.value.fix
    assert not (tmp_path / name / MANIFEST_NAME).exists()


def test_rows_that_wandered_from_one_part_to_another_are_named(tmp_path: Path) -> None:
    stage(tmp_path, "first", ["abc", "de"])
    with pytest.raises(ConservationError, match="documents of part-00000") as caught:
        stage(tmp_path, "second", ["ab", "cde"], inputs=("first",))
    assert caught.value.found == "2 kept and 0 dropped (into second)"
    shutil.rmtree(tmp_path / "second")
    with pytest.raises(ConservationError, match="shards"):
        stage(tmp_path, "second", ["abcde"], inputs=("first",))


def test_files_with_other_rows_than_counted_stop_it(tmp_path: Path) -> None:
    with pytest.raises(ConservationError, match="files hold another number of rows"):
        stage(tmp_path, "first", ["abc"], counts=Counts(in_=4, out=4))


@pytest.mark.parametrize(
    ("rows", "counts"),
    [
        ([drop("b")], Counts(in_=2, out=1, dropped={"long": 1})),
        ([], Counts(in_=2, out=1, dropped={"short": 1})),
        ([drop("b"), drop("c")], Counts(in_=2, out=1, dropped={"short": 1})),
        # A crawl's row for what it only counted is one, too: its score is in no sum.
        ([replace(drop("b"), score=7.0)], Counts(in_=8, out=1, dropped={"short": 7})),
        ([replace(drop("b"), score=40.0), replace(drop("c"), score=2.0)], Counts(in_=43, out=1, dropped={"short": 42})),
        ([replace(drop("b"), action="note")], Counts(in_=2, out=1, dropped={"short": 1})),
    ],
)
def test_a_ledger_with_other_drops_than_counted_stops_it(tmp_path: Path, rows: list[LedgerRow], counts: Counts) -> None:
    with pytest.raises(ConservationError, match="the ledger has another number of drops"):
        stage(tmp_path, "first", ["a"], rows, counts=counts)


@pytest.mark.parametrize(
    ("kept", "rows"),
    [
        (["aba"], []),
        (["ab", "ca"], []),
        (["ab"], [drop("a")]),
        (["b"], [drop("a"), drop("a")]),
        (["a" * 3 + "b"], []),
    ],
)
def test_a_doc_id_is_one_document_kept_or_dropped(tmp_path: Path, kept: list[str], rows: list[LedgerRow]) -> None:
    with pytest.raises(ConservationError, match="two documents have one id") as caught:
        stage(tmp_path, "first", kept, rows)
    found = str(caught.value.found)
    assert found.startswith("a in ")
    assert found.count("row") >= 2
    assert "crawl" in str(caught.value.fix)


def test_what_is_put_aside_is_another_document_than_what_goes_on(tmp_path: Path) -> None:
    write_documents(tmp_path / "split/heldout/part-00000.parquet", [page("b")])
    stage(tmp_path, "split", ["a"], [drop("b")])
    shutil.rmtree(tmp_path / "split")
    write_documents(tmp_path / "split/heldout/part-00000.parquet", [page("a")])
    with pytest.raises(ConservationError, match="two documents have one id"):
        stage(tmp_path, "split", ["a"], [drop("b")])


def test_rows_without_an_id_and_notes_are_no_documents(tmp_path: Path) -> None:
    stage(tmp_path, "first", ["a"], [drop(None), drop(None), replace(drop("a"), action="edit")])


def test_no_document_is_its_own_survivor(tmp_path: Path) -> None:
    with pytest.raises(ConservationError, match="its own survivor"):
        stage(tmp_path, "dedup", ["a"], [drop("b", survivor_id="b")])


def warc(path: Path, kinds: list[str], name: str = "WARC-Type", end: bytes = b"\r\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        for number, kind in enumerate(kinds):
            fields = [b"WARC/1.1", f"{name}: {kind}".encode(), f"WARC-Record-ID: <urn:{number}>".encode()]
            fields += [b"WARC-Target-URI: http://h/", b" folded", b"content-length: 11"]
            stream.write(gzip.compress(end.join(fields) + end * 2 + b"WARC/1.1\r\n " + end * 2))


def test_pages_of_a_crawl_are_counted_by_a_reader_of_their_own(tmp_path: Path) -> None:
    kinds = ["warcinfo", "request", "response", "metadata", "resource", "response", "revisit"]
    for number, (name, end) in enumerate([("WARC-Type", b"\r\n"), ("warc-type", b"\n"), ("WARC-TYPE", b"\r\n")]):
        path = tmp_path / f"{number}/part-00000.warc.gz"
        warc(path, kinds, name, end)
        assert count_rows(path) == 3
        assert [one.fields["warc-record-id"] for one in read_entries(path) if one.is_page] == [
            "<urn:2>",
            "<urn:4>",
            "<urn:5>",
        ]
    crawl = tmp_path / "0"
    commit_manifest(crawl, stage="crawl", unit="urls", params={}, inputs={}, counts=Counts(in_=3, out=3))
    assert read_manifest(crawl).shard("part-00000.warc.gz").rows == 3
    with pytest.raises(ConservationError, match="crawl put out is not what extract took in"):
        stage(tmp_path, "extract", ["ab"], inputs=("0",), unit="records")
    shutil.rmtree(tmp_path / "extract")
    stage(tmp_path, "extract", ["ab"], [drop("c")], inputs=("0",), unit="records")


def tokens(data: Path, ids: int) -> None:
    (data / "tokenize").mkdir(parents=True)
    (data / "tokenize/part-00000.bin").write_bytes(b"\0\0" * ids)
    (data / "tokenize/validation.bin").write_bytes(b"\0\0" * 99)
    write_json(data / "tokenize/tokens.json", {"dtype": "uint16"})
    commit_manifest(
        data / "tokenize", stage="tokenize", unit="documents", params={}, inputs={}, counts=Counts(in_=0, out=0)
    )


@pytest.mark.parametrize(("epochs", "taken", "right"), [(1, 50, True), (3, 150, True), (1, 49, False), (2, 50, False)])
def test_training_takes_in_every_token_in_every_pass(tmp_path: Path, epochs: int, taken: int, right: bool) -> None:
    tokens(tmp_path, 50)
    (tmp_path / "train").mkdir()

    def train() -> None:
        commit_manifest(
            tmp_path / "train",
            stage="train",
            unit="tokens",
            params={"epochs": epochs},
            inputs={"tokenize": tmp_path / "tokenize"},
            counts=Counts(in_=taken, out=taken),
        )

    if right:
        train()
    else:
        with pytest.raises(ConservationError, match="tokenize put out is not what train took in: tokens"):
            train()


@pytest.mark.parametrize(("limit", "scored", "right"), [(None, 4, True), (3, 3, True), (9, 4, True), (None, 3, False)])
def test_every_item_is_scored(tmp_path: Path, limit: int | None, scored: int, right: bool) -> None:
    for place, number in (("holdout/tasks", 4), ("evaluate/samples", scored)):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "quiz.jsonl").write_text("".join(json.dumps({"item_id": n}) + "\n" for n in range(number)))
    commit_manifest(
        tmp_path / "holdout", stage="holdout", unit="documents", params={}, inputs={}, counts=Counts(in_=0, out=0)
    )

    def evaluate() -> None:
        commit_manifest(
            tmp_path / "evaluate",
            stage="evaluate",
            unit="items",
            params={"tasks": ["quiz", "of_a_hub"], "limit": limit},
            inputs={"holdout": tmp_path / "holdout"},
            counts=Counts(in_=scored, out=scored),
        )

    if right:
        evaluate()
    else:
        with pytest.raises(ConservationError, match="items of quiz"):
            evaluate()


def test_a_stage_that_reads_doubled_documents_from_elsewhere_stops(tmp_path: Path) -> None:
    stage(tmp_path, "first", ["aba"], checked=False)
    with pytest.raises(ConservationError, match="two documents have one id"):
        stage(tmp_path, "second", ["aba"], inputs=("first",))

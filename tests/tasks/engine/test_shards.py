from __future__ import annotations

import functools
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from tasks.contracts.document import Document, read_documents, write_documents
from tasks.contracts.errors import InputError, ManifestError
from tasks.contracts.ledger import LedgerRow, read_ledger
from tasks.contracts.manifest import Counts, commit_manifest
from tasks.engine import session, shards
from tasks.engine.session import RayParams, ray_on_demand
from tasks.engine.shards import MapResult, ShardWork, keep_or_drop, map_shards, work_for

CALLS: list[str] = []


def drop_every_third(work: ShardWork, folder: Path, *, rule: str = "third") -> Counts:
    CALLS.append(work.name)

    def decide(documents: Iterator[Document]) -> Iterator[Document | LedgerRow]:
        for document in documents:
            if int(document.doc_id) % 3 == 0:
                yield LedgerRow(stage="x", action="drop", rule=rule, doc_id=document.doc_id)
            else:
                yield LedgerRow(stage="x", action="note", rule="seen", doc_id=document.doc_id)
                yield document

    return keep_or_drop(work, folder, decide)


def fail_on_second(work: ShardWork, folder: Path) -> Counts:
    if work.name == "part-00001":
        raise InputError("cannot be made", where=work.name, fix="mend it")
    return drop_every_third(work, folder)


def lose_one(work: ShardWork, folder: Path) -> Counts:
    return keep_or_drop(work, folder, lambda documents: list(documents)[1:])  # type: ignore[arg-type,return-value]


@pytest.fixture
def corpus(workspace: Path) -> Path:
    folder = workspace / "data" / "a"
    for part in range(3):
        rows = range(part * 10, part * 10 + 10)
        write_documents(
            folder / f"part-{part:05d}.parquet",
            [Document(doc_id=str(n), url="u", host="h", record_id=str(n), source="s", text=f"text {n}") for n in rows],
        )
    commit_manifest(folder, stage="a", unit="documents", params={}, inputs={}, counts=Counts(in_=30, out=30))
    CALLS.clear()
    return folder


def run(corpus: Path, name: str, function: object = drop_every_third, **options: object) -> MapResult:
    settings = {"stage": "x", "params": {}, "code": ["tasks.contracts"], **options}
    return map_shards(function, work_for(corpus), output=Path("data") / name, **settings)  # type: ignore[arg-type]


def test_each_part_comes_from_its_part_with_a_ledger_beside_it(corpus: Path) -> None:
    result = run(corpus, "b")
    assert result.counts == Counts(in_=30, out=20, dropped={"third": 10})
    kept = [document.doc_id for document in read_documents(Path("data/b/part-00001.parquet"))]
    assert kept == ["10", "11", "13", "14", "16", "17", "19"]
    ledger = list(read_ledger(Path("data/b/dropped/part-00001.parquet")))
    assert [row.doc_id for row in ledger if row.action == "drop"] == ["12", "15", "18"]
    assert len(ledger) == 10, "notes are in the ledger too, and do not count as dropped"


def test_a_finished_shard_is_not_made_again(corpus: Path) -> None:
    first = run(corpus, "b")
    CALLS.clear()
    second = run(corpus, "c")
    assert (CALLS, second.hits, second.counts) == ([], 3, first.counts)
    assert Path("data/c/part-00000.parquet").read_bytes() == Path("data/b/part-00000.parquet").read_bytes()


@pytest.mark.parametrize("change", [{"params": {"a": 1}}, {"code": ["tasks.crawl"]}, {"libraries": ["numpy"]}])
def test_whatever_decides_the_bytes_is_part_of_the_key(corpus: Path, change: dict[str, object]) -> None:
    run(corpus, "b")
    assert run(corpus, "c", **change).hits == 0


def test_a_shared_file_is_part_of_the_key_by_its_content(corpus: Path) -> None:
    model = Path("model.bin")
    model.write_text("one")
    run(corpus, "b", shared={"model": model})
    assert run(corpus, "c", shared={"model": model}).hits == 3
    model.write_text("two")
    assert run(corpus, "d", shared={"model": model}).hits == 0


def test_a_changed_part_costs_one_shard(corpus: Path) -> None:
    run(corpus, "b")
    changed = Document(doc_id="99", url="u", host="h", record_id="r", source="s", text="t")
    write_documents(corpus / "part-00002.parquet", [changed])
    commit_manifest(corpus, stage="a", unit="documents", params={}, inputs={}, counts=Counts(in_=21, out=21))
    CALLS.clear()
    assert run(corpus, "c").hits == 2
    assert CALLS == ["part-00002"]


@pytest.mark.parametrize("damage", ["another byte", "cut short", "longer", "gone"])
def test_a_damaged_cache_entry_is_made_again(corpus: Path, workspace: Path, damage: str) -> None:
    run(corpus, "b")
    whole = Path("data/b/part-00000.parquet").read_bytes()
    victim = next(workspace.glob(".headwater/shards/*/part-00000.parquet"))
    victim.unlink()
    left = {"another byte": whole[:-1] + b"?", "cut short": whole[:-1], "longer": whole + b"?"}
    if damage in left:
        victim.write_bytes(left[damage])
    assert run(corpus, "c").hits == 2
    assert Path("data/c/part-00000.parquet").read_bytes() == whole


def test_shards_may_stay_in_the_cache(corpus: Path) -> None:
    linked = run(corpus, "b")
    left = map_shards(drop_every_third, work_for(corpus), output=None, stage="x", params={}, code=["tasks.contracts"])
    assert (left.hits, left.files) == (3, linked.files)
    for name, folder in left.folders.items():
        assert (folder / f"{name}.parquet").read_bytes() == Path(f"data/b/{name}.parquet").read_bytes()


def test_shards_finished_before_a_failure_are_kept(corpus: Path) -> None:
    with pytest.raises(InputError, match="mend it"):
        run(corpus, "b", fail_on_second)
    CALLS.clear()
    with pytest.raises(InputError):
        run(corpus, "b", fail_on_second)
    assert "part-00000" not in CALLS


def test_a_shard_that_loses_a_document_is_an_error(corpus: Path) -> None:
    with pytest.raises(ManifestError, match="lost or invented"):
        run(corpus, "b", lose_one)


def test_inputs_with_other_parts_are_an_error(corpus: Path) -> None:
    other = Path("data/other")
    write_documents(other / "part-00000.parquet", [])
    commit_manifest(other, stage="o", unit="documents", params={}, inputs={}, counts=Counts(in_=0, out=0))
    with pytest.raises(ManifestError, match="same shards"):
        work_for(corpus, other)


def test_ray_makes_the_same_bytes_and_brings_errors_home(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inline = run(corpus, "inline")
    monkeypatch.setenv("HEADWATER_STATE", "other-state")
    monkeypatch.setattr(shards, "SMALL_BYTES", 0)
    with ray_on_demand(RayParams(num_cpus=2)):
        spread = run(corpus, "spread", functools.partial(drop_every_third, rule="third"))
        with pytest.raises(InputError, match="mend it") as caught:
            run(corpus, "failing", fail_on_second, params={"b": 1})
    assert "part-00001" in str(caught.value)
    assert spread.hits == 0
    assert spread.files == inline.files


@pytest.mark.parametrize(
    ("limits", "of_parts", "made_before_ray"),
    [
        ({}, 3, 3),
        ({}, 1, 1),
        ({"SMALL_BYTES": 0}, 3, 0),  # a large shard is never made here beside others
        ({"brief_seconds": 0.0}, 3, 0),
        ({"SMALL_BYTES": 0, "brief_seconds": 0.0}, 1, 1),  # one alone is, however large
        ({"brief_seconds": 0.2}, 3, 1),  # the first one took longer, so the others are spread
        ({"brief_seconds": 0.0, "num_cpus": 1}, 3, 3),  # one processor is this process's own
    ],
)
def test_what_is_little_does_not_wait_for_ray(
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    limits: dict[str, float],
    of_parts: int,
    made_before_ray: int,
) -> None:
    own = {name: value for name, value in limits.items() if name != "num_cpus"}
    for name, value in own.items():
        monkeypatch.setattr(shards, name, (lambda seconds=value: seconds) if name == "brief_seconds" else value)

    class RayAskedForError(Exception):
        pass

    def refuse(_params: RayParams) -> None:
        raise RayAskedForError

    def slow(work: ShardWork, folder: Path) -> Counts:
        if limits.get("brief_seconds"):
            time.sleep(0.3)
        return drop_every_third(work, folder)

    monkeypatch.setattr(session, "ray_session", refuse)
    asked = pytest.raises(RayAskedForError) if made_before_ray < of_parts else nullcontext()
    with ray_on_demand(RayParams(num_cpus=int(limits.get("num_cpus", 2)))), asked:
        work = work_for(corpus)[:of_parts]
        map_shards(slow, work, stage="x", output=None, params={}, code=["tasks.contracts"])
    assert len(CALLS) == made_before_ray


def test_shards_are_made_here_until_ray_is_there(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SMALL_BYTES", 0)
    monkeypatch.setattr(shards, "brief_seconds", lambda: 0.0)
    near = iter([False, True])
    monkeypatch.setattr(shards, "session_is_near", lambda: next(near))
    monkeypatch.setattr(shards, "open_session", lambda: pytest.fail("asked to spread"))
    with pytest.raises(pytest.fail.Exception, match="asked to spread"):
        run(corpus, "b")
    assert len(CALLS) == 1


@pytest.mark.parametrize(("left", "spent", "here"), [(2, 5.5, True), (20, 5.5, False), (20, 4.5, True)])
def test_what_is_left_is_made_here_where_ray_would_take_longer(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, left: int, spent: float, here: bool
) -> None:
    """After six shards in 5.5 s, two more take less than joining Ray, twenty more do not; sooner, small ones do."""
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 0.5, 0.5))
    todo = work_for(corpus)[:1] * left
    assert shards._is_brief(todo, 6, spent) is here


def test_what_a_busy_machine_makes_slow_is_still_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "cpu_count", lambda: 4)
    for load, seconds in ((0.0, 5.0), (4.0, 5.0), (12.0, 15.0)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert session.brief_seconds() == seconds


def test_where_ray_is_there_already_small_shards_are_spread_too(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "session_is_open", lambda: True)
    monkeypatch.setattr(shards, "open_session", lambda: pytest.fail("asked to spread"))
    with pytest.raises(pytest.fail.Exception, match="asked to spread"):
        run(corpus, "b")
    assert CALLS == []

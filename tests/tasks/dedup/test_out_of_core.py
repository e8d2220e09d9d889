"""Dedup in pieces: the same result whatever is held in memory, spread over nodes or remembered from before."""

from __future__ import annotations

import logging
import os
import random
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.contracts.document import Document, write_documents
from tasks.contracts.manifest import Counts, commit_manifest, manifest_hash
from tasks.contracts.workspace import ROOT
from tasks.dedup import candidates, verification
from tasks.dedup.candidates import LEADERS, PAIR
from tasks.dedup.corpus import first_places, repeated
from tasks.dedup.shingles import jaccard
from tasks.dedup.stage import Params, run
from tasks.engine.shards import reused
from tests.tasks.dedup.conftest import Dedup, document

WORDS = [f"w{number}" for number in range(400)]
# Bands of one row each: a pair of some similarity is as good as sure to be compared.
ALL_FOUND = Params(bands=64, rows=1, threshold=0.5)


def text(seed: int, changes: int = 0) -> str:
    generator = random.Random(seed)
    words = generator.choices(WORDS, k=60)
    for number in range(changes):
        words[(7 * number + 3) % 60] = f"new{seed}x{changes}x{number}"
    return " ".join(words)


def corpus() -> list[Document]:
    documents = [document(f"page-{seed}-{n}", text(seed, n)) for seed in range(20) for n in range(seed % 5)]
    documents += [document(f"twin-{seed}", text(seed, 1), captured_at="2021") for seed in range(6)]
    return documents + [document(f"payload-{n}", text(100 + n), payload_digest=f"sha1:{n % 3}") for n in range(9)]


Planted = st.tuples(
    st.integers(0, 2), st.integers(0, 4), st.integers(0, 3), st.integers(0, 3), st.sampled_from(["2020", "2021"])
)


@given(plants=st.lists(Planted, max_size=14))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_survivors_are_those_of_a_comparison_of_all_with_all(
    dedup: Dedup, plants: list[tuple[int, int, int, int, str]]
) -> None:
    documents = []
    for number, (seed, changes, payload, url, time) in enumerate(plants):
        made = document(str(number), text(seed, changes), captured_at=time)
        more = {"payload_digest": f"sha1:{payload}"} if payload else {}
        if url:
            more["url"] = f"http://pages.example/page-{url}"
        documents.append(Document(**{**{f: getattr(made, f) for f in made.__dataclass_fields__}, **more}))
    outcome = dedup(documents[::2], documents[1::2], params=ALL_FOUND)
    expected: dict[str, tuple[str | None, str | None]] = {}
    left = sorted(documents, key=lambda d: (-len(d.text), d.captured_at, d.doc_id))
    while left:
        survivor, *left = left
        expected[survivor.doc_id] = (None, None)
        for other in [d for d in left if rule(survivor, d)]:
            expected[other.doc_id] = (rule(survivor, other), survivor.doc_id)
            left.remove(other)
    assert outcome.fates() == expected
    texts = {d.doc_id: d.text for d in documents}
    for row in outcome.ledger:
        assert row.score == pytest.approx(true_jaccard(texts[str(row.doc_id)], texts[str(row.survivor_id)]))


def rule(survivor: Document, other: Document) -> str | None:
    if survivor.url == other.url:
        return "exact_url"
    if survivor.payload_digest and survivor.payload_digest == other.payload_digest:
        return "exact_payload"
    if survivor.text == other.text:
        return "exact_text"
    return "near_duplicate" if true_jaccard(survivor.text, other.text) >= 0.5 else None


def true_jaccard(left: str, right: str) -> float:
    first, second = ({tuple(w[at : at + 5]) for at in range(len(w) - 4)} for w in (left.split(), right.split()))
    return len(first & second) / len(first | second)


@pytest.fixture
def kept_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves what a stage has half-done where it was, to be looked at."""
    monkeypatch.setattr("tasks.engine.stage.shutil.rmtree", lambda *_, **__: None)


def newest_candidates() -> Path:
    """Return the folder of the last run's candidates."""
    return max(Path("state/scratch").glob("dedup-*/candidates"), key=lambda folder: folder.stat().st_mtime_ns)


@pytest.mark.usefixtures("kept_scratch")
def test_what_is_held_in_memory_changes_nothing(dedup: Dedup) -> None:
    documents = corpus()
    whole = dedup(documents[:40], documents[40:])
    for held in (200, 40):
        pieces = dedup(documents[:40], documents[40:], params=Params(keys_in_memory=held))
        assert manifest_hash(pieces.folder) == manifest_hash(whole.folder)
    assert len(list(newest_candidates().glob("*.groups.bin"))) > 3, "it was in pieces"


def test_a_key_shared_by_more_than_memory_holds_is_read_in_pieces(dedup: Dedup) -> None:
    # All near: one band value, shared by every document, many more as are held.
    shared = " ".join(WORDS[:300])
    documents = [document(f"page-{n}", f"{shared} tail {n}") for n in range(320)]
    documents += [document(f"again-{n}", f"{shared} tail {n}") for n in range(40)]
    bands = {"bands": 2, "rows": 2}
    pieces = dedup(documents[:100], documents[100:], params=Params(**bands, keys_in_memory=40))
    assert len(pieces.kept) == 1
    assert manifest_hash(pieces.folder) == manifest_hash(
        dedup(documents[:100], documents[100:], params=Params(**bands)).folder
    )


@pytest.mark.usefixtures("kept_scratch")
@pytest.mark.parametrize("held", [500, 1 << 18])
def test_a_band_that_very_many_share_costs_no_more_for_each_of_them(dedup: Dedup, held: int) -> None:
    shared = " ".join(WORDS[:60])

    def compared(count: int) -> float:
        # J = 0.57 of each with each, and the threshold above it: nobody stands for anybody, the worst case.
        documents = [
            document(f"page-{n}", f"{shared} " + " ".join(f"own{n}x{k}" for k in range(21))) for n in range(count)
        ]
        outcome = dedup(documents, params=Params(bands=4, rows=1, num_perm=8, threshold=0.7, keys_in_memory=held))
        assert len(outcome.kept) == count
        found = newest_candidates().glob("*.pairs.*.bin")
        return sum(path.stat().st_size for path in found) / PAIR.itemsize / count

    few, many = compared(200), compared(800)
    assert few > LEADERS / 2, "they do share bands"
    assert many <= 4 * LEADERS
    assert many <= few * 1.2


def test_one_new_shard_verifies_only_what_it_brings(dedup: Dedup, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = corpus()
    calls = 0

    def counting(*arguments: Any, **more: Any) -> float:
        nonlocal calls
        calls += 1
        return jaccard(*arguments, **more)

    monkeypatch.setattr("tasks.dedup.verification.jaccard", counting)
    dedup(documents[:30], documents[30:])
    first, calls = calls, 0
    assert first > 20
    again = dedup(documents[:30], documents[30:])
    assert calls == 0
    new = [document("new-1", text(4, 2) + " end"), document("new-2", text(999))]
    more = dedup(documents[:30], documents[30:], new)
    assert 0 < calls < first / 2
    monkeypatch.setenv("HEADWATER_STATE", str(Path("another-state").resolve()))
    fresh = dedup(documents[:30], documents[30:], new)
    assert manifest_hash(more.folder) == manifest_hash(fresh.folder)
    assert manifest_hash(more.folder) != manifest_hash(again.folder)


Parts = list[list[Document]]
NEW = [document("new-1", text(4, 2) + " end"), document("new-2", text(999)), document("new-3", text(3, 1))]
CHANGES: dict[str, Callable[[Parts], Parts]] = {
    "one more at the end": lambda parts: [*parts, NEW],
    "one more in the middle": lambda parts: [*parts[:2], NEW, *parts[2:]],
    "one with other documents": lambda parts: [parts[0], NEW, *parts[2:]],
    "one shorter": lambda parts: [parts[0], parts[1][1:], *parts[2:]],
    "one empty": lambda parts: [parts[0], [], *parts[2:]],
    "one removed": lambda parts: [parts[0], *parts[2:]],
    "another order": lambda parts: parts[::-1],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "params", [Params(), Params(keys_in_memory=200, line_documents=3)], ids=["in one piece", "in pieces, with cuts"]
)
def test_after_a_change_of_the_shards_the_result_is_that_of_a_full_run(
    dedup: Dedup, monkeypatch: pytest.MonkeyPatch, change: str, params: Params
) -> None:
    lines = "\n".join(f"a line that stands in many documents, {n}" for n in range(3))
    documents = [Document(**{**asdict(d), "text": f"{d.text}\n{lines}"}) for d in corpus()]
    parts = [documents[n::4] for n in range(4)]
    before = dedup(*parts, params=params)
    assert before.ledger
    after = dedup(*CHANGES[change](parts), params=params)
    monkeypatch.setenv("HEADWATER_STATE", str(Path("another-state").resolve()))
    fresh = dedup(*CHANGES[change](parts), params=params)
    assert manifest_hash(after.folder) == manifest_hash(fresh.folder)
    assert manifest_hash(after.folder) != manifest_hash(before.folder)


@pytest.mark.parametrize("kind", ["docs", "keys", "sets"])
def test_damaged_arrays_of_an_old_shard_are_made_again(
    dedup: Dedup, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    documents = corpus()
    dedup(documents[:30], documents[30:])
    (victim,) = Path("state/shards").glob(f"*/part-00000.{kind}.bin")
    whole = victim.read_bytes()
    victim.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    more = dedup(documents[:30], documents[30:], NEW)
    assert victim.read_bytes() == whole
    monkeypatch.setenv("HEADWATER_STATE", str(Path("another-state").resolve()))
    assert manifest_hash(more.folder) == manifest_hash(dedup(documents[:30], documents[30:], NEW).folder)


def test_one_new_shard_rewrites_only_shards_with_other_decisions(dedup: Dedup) -> None:
    parts = [[document(f"page-{seed}", text(seed)), document(f"twin-{seed}", text(seed))] for seed in range(4)]
    dedup(*parts)
    dedup(*parts, [document("new", text(2) + " end")])
    assert reused["dedup.signatures"] == 4
    assert reused["dedup"] == 3, "only the shard whose document the new one stands for is another"


def test_a_new_shard_that_repeats_old_documents_leaves_their_shards_as_they_were(dedup: Dedup) -> None:
    parts = [[document(f"page-{seed}", text(seed), captured_at="2024")] for seed in range(4)]
    dedup(*parts)
    outcome = dedup(*parts, [document(f"again-{seed}", text(seed), captured_at="2025") for seed in range(4)])
    assert len(outcome.ledger) == 4
    assert reused["dedup"] == 4, "that others stand behind it is said in their ledger, not in the survivor's shard"


@pytest.mark.parametrize("damage", ["cut short", "other figures"])
def test_a_damaged_memory_of_pairs_is_not_believed(dedup: Dedup, damage: str) -> None:
    outcome = dedup(corpus())
    (memory,) = Path("state/dedup").glob("memory-pairs-*.bin")
    if damage == "cut short":
        memory.write_bytes(memory.read_bytes()[:-7])
    else:
        pairs = np.fromfile(memory, verification.VERIFIED)
        pairs["similarity"] = 0.1
        pairs.tofile(memory)
    assert manifest_hash(dedup(corpus()).folder) == manifest_hash(outcome.folder)


@pytest.fixture
def growing_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    # Else Ray writes one into the home folder, and two that do so at once have each other's.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    # Not announced on this machine: the sessions of other tests would join it.
    for name in ("write_ray_address", "reset_ray_address"):
        monkeypatch.setattr(f"ray._private.utils.{name}", lambda *_, **__: None, raising=False)
    folder = tempfile.mkdtemp(prefix="ray-")
    head = {"num_cpus": 1, "object_store_memory": 80 << 20, "temp_dir": folder}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def test_one_two_and_three_nodes_give_the_bytes_that_no_ray_gives(
    dedup: Dedup, growing_cluster: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    documents = corpus()
    source = tmp_path / "filter"
    for number in range(3):
        write_documents(source / f"part-{number:05d}.parquet", documents[number::3])
    counts = Counts(in_=len(documents), out=len(documents))
    commit_manifest(source, stage="filter", unit="documents", params={}, inputs={}, counts=counts)
    params = Params(keys_in_memory=200, line_documents=3)
    hashes = set()
    for nodes in (1, 2, 3):
        if nodes > 1:
            growing_cluster.add_node(num_cpus=1, object_store_memory=80 << 20)  # type: ignore[attr-defined]
            growing_cluster.wait_for_nodes()  # type: ignore[attr-defined]
        assert sum(node["Alive"] for node in ray.nodes()) == nodes
        monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / f"state-{nodes}"))
        run(params=params, inputs={"filter": source}, output=tmp_path / f"out-{nodes}")
        spread = list((tmp_path / f"state-{nodes}/shards").glob("*/*.groups.bin"))
        assert len(spread) > 2, "it was spread"
        hashes.add(manifest_hash(tmp_path / f"out-{nodes}"))
    ray.shutdown()
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / "state-inline"))
    run(params=params, inputs={"filter": source}, output=tmp_path / "out-inline")
    assert hashes == {manifest_hash(tmp_path / "out-inline")}


Halves = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=40)


@given(halves=Halves)
@settings(max_examples=100)
def test_equal_keys_are_found_wherever_they_stand(halves: list[tuple[int, int]]) -> None:
    keys = np.array(halves, dtype=np.uint64).reshape(-1, 2)
    assert first_places(keys).tolist() == [halves.index(pair) for pair in halves]
    values = [first for first, _ in halves]
    expected = [place for place, value in enumerate(values) if values.count(value) > 1]
    assert repeated(keys[:, 0]).tolist() == sorted(expected, key=lambda place: (values[place], place))


def test_pair_keys_do_not_depend_on_which_text_comes_first() -> None:
    left, right = np.random.default_rng(0).integers(0, 2**63, (2, 50, 2)).astype(np.uint64)
    assert np.array_equal(candidates.pair_keys(left, right), candidates.pair_keys(right, left))
    assert len(np.unique(candidates.pair_keys(left, right)[:, 0])) == 50

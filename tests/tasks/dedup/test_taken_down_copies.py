"""What is near to a taken-down text is dropped, stands for nothing else, and leaves other parts alone."""

from __future__ import annotations

import base64
import random

import pytest

from tasks.contracts.errors import InputError
from tasks.dedup.shingles import shingles
from tasks.dedup.stage import Params
from tasks.rights.takedowns import Fingerprint, Row, add_fingerprints, append_row, text_sha256
from tests.tasks.dedup.conftest import Dedup, document

VOCABULARY = [f"word{number}" for number in range(3_000)]
NAME = f"{1:016x}"


def prose(seed: int, words: int = 300) -> str:
    return " ".join(random.Random(seed).choices(VOCABULARY, k=words))


def with_changes(text: str, changes: int) -> str:
    found = text.split()
    for number in range(changes):
        found[number * (len(found) // changes) + 3] = f"changed{number}"
    return " ".join(found)


def take_down(text: str) -> None:
    append_row(Row(id=NAME, kind="url", value="https://gone.example/", reason="asked", date="2026-01-31"))
    values = shingles(text, size=5)
    add_fingerprints(
        [
            Fingerprint(
                tombstone=NAME,
                text_sha256=text_sha256(text),
                shingles=base64.b64encode(values.astype("<u4").tobytes()).decode(),
                shingle_count=len(values),
            )
        ]
    )


def test_near_duplicates_of_a_tombstone_are_dropped_and_others_get_a_survivor_of_their_own(dedup: Dedup) -> None:
    gone = prose(1)
    near, far = with_changes(gone, 3), with_changes(gone, 40)
    others = [document("other", prose(2)), document("other-copy", prose(2))]
    parts = [
        [document("near", near), document("far", far)],
        others,
        [document("near-again", near.upper()), document("plain", prose(3))],
    ]
    take_down("something else entirely, of more than five words")
    before = dedup(*parts)
    take_down(gone)
    outcome = dedup(*parts)
    rows = {row.record_id: row for row in outcome.ledger}
    assert set(rows) == {"near", "near-again", "other-copy"} or set(rows) == {"near", "near-again", "other"}
    assert rows["near"].rule == rows["near-again"].rule == "takedown_near"
    assert rows["near"].detail == f"tombstone {NAME}"
    assert rows["near"].survivor_id is None
    assert 0.8 <= (rows["near"].score or 0) < 1
    assert outcome.manifest.counts.dropped == {"exact_text": 1, "takedown_near": 2}
    unchanged = [shard for shard in before.manifest.shards if "00001" in shard.name]
    assert all(shard in outcome.manifest.shards for shard in unchanged)


def test_what_was_near_to_a_taken_text_only_through_it_survives(dedup: Dedup) -> None:
    gone = prose(1)
    bridge = with_changes(gone, 4)
    beyond = with_changes(" ".join(reversed(prose(9).split())), 2)
    take_down(gone)
    outcome = dedup([document("bridge", bridge), document("beyond", beyond)])
    assert [one.record_id for one in outcome.kept] == ["beyond"]


def test_a_short_text_is_known_by_its_hash(dedup: Dedup) -> None:
    take_down("three short words")
    outcome = dedup([document("short", "Three  SHORT words"), document("other", "three short word")])
    assert [one.record_id for one in outcome.kept] == ["other"]
    assert outcome.ledger[0].score == 1.0


def test_other_shingles_than_the_lists_are_an_error(dedup: Dedup) -> None:
    take_down(prose(1))
    with pytest.raises(InputError, match="cannot be found with these shingles"):
        dedup([document("one", prose(2))], params=Params(shingle_words=7))

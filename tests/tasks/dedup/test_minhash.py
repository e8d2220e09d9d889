"""Signatures: datasketch's own values in bulk, bands that mean what they say, and the curve that follows."""

from __future__ import annotations

import random

import numpy as np
import pytest
from datasketch import MinHash

from tasks.contracts.document import make_doc_id
from tasks.contracts.errors import ToolMissingError
from tasks.dedup import minhash
from tasks.dedup.minhash import Backend, Permutations, Sketch, band_keys, hasher
from tasks.dedup.shingles import ShingleSets
from tasks.dedup.stage import Params
from tests.tasks.dedup.conftest import Dedup, document


def sketch(backend: Backend, bands: int = 16, rows: int = 8) -> Sketch:
    return Sketch(shingle_words=5, max_shingles=20_000, bands=bands, rows=rows, seed=1, backend=backend)


def number_sets(*sizes: int) -> ShingleSets:
    rng = np.random.default_rng(0)
    values = [np.sort(rng.choice(2**32 - 1, size, replace=False).astype(np.uint32)) for size in sizes]
    return ShingleSets(np.concatenate(values), np.array(sizes))


def test_signatures_in_bulk_are_those_of_datasketch(monkeypatch: pytest.MonkeyPatch) -> None:
    sets = number_sets(5, 300, 1, 1, 70, 2)
    for block in (1 << 15, 64, 7):  # smaller than a set, so that sets go on over several blocks
        monkeypatch.setattr(minhash, "_BLOCK", block)
        signatures = Permutations(64, 3)(sets)
        for values, signature in zip(sets, signatures, strict=True):
            expected = MinHash(num_perm=64, seed=3, hashfunc=int, scheme="affine32")
            expected.update_batch(values.tolist())
            assert np.array_equal(expected.hashvalues, signature)


def test_a_datasketch_with_other_permutations_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minhash, "_mix32", lambda numbers: numbers)
    with pytest.raises(ToolMissingError, match="other signatures"):
        Permutations(16, 1)


@pytest.mark.parametrize("backend", ["datasketch", "rensa"])
def test_equal_sets_share_all_bands_and_unlike_ones_none(backend: Backend) -> None:
    sets = number_sets(400, 400)
    twice = ShingleSets(np.concatenate([sets.values, sets.values[:400]]), np.array([400, 400, 400]))
    keys = band_keys(hasher(sketch(backend))(twice), 16)
    assert np.array_equal(keys[0], keys[2])
    assert not np.isin(keys[0], keys[1]).any()
    assert len(np.unique(keys[:2])) == 32, "the same rows in another band are another key"


@pytest.mark.parametrize("backend", ["datasketch", "rensa"])
def test_the_estimate_of_similarity_is_right(backend: Backend) -> None:
    values = number_sets(1_200).values
    shuffled = np.random.default_rng(1).permutation(values)
    left, right = np.sort(shuffled[:1_000]), np.sort(shuffled[200:])
    signatures = hasher(sketch(backend, 128, 8))(ShingleSets(np.concatenate([left, right]), np.array([1_000, 1_000])))
    assert np.mean(signatures[0] == signatures[1]) == pytest.approx(800 / 1_200, abs=0.06)


def test_the_shard_key_says_what_made_the_signatures() -> None:
    first, second = sketch("datasketch"), sketch("rensa")
    assert first.identity()["scheme"] == "affine32"
    assert first.identity() != second.identity()
    assert "datasketch" in first.libraries()
    assert "rensa" in second.libraries()


@pytest.mark.parametrize("backend", ["datasketch", "rensa"])
def test_planted_pairs_are_found_and_none_below_the_threshold_is_dropped(dedup: Dedup, backend: Backend) -> None:
    generator = random.Random(5)
    vocabulary = [f"word{number}" for number in range(5_000)]
    documents, similarities = [], {}
    for number in range(400):
        words = generator.choices(vocabulary, k=200)
        changes = round(number / 400 * 22)
        other = list(words)
        for change in range(changes):
            other[2 + change * (196 // max(changes, 1))] = f"changed{number}x{change}"
        documents += [document(f"{number}-a", " ".join(words)), document(f"{number}-b", " ".join(other))]
        runs = [{tuple(w[at : at + 5]) for at in range(196)} for w in (words, other)]
        similarities[number] = len(runs[0] & runs[1]) / len(runs[0] | runs[1])
    assert min(similarities.values()) < 0.32
    outcome = dedup(documents, params=Params(backend=backend))
    number_of = {make_doc_id("test", f"{n}-{side}"): n for n in range(400) for side in "ab"}
    found = set()
    for row in outcome.ledger:
        assert number_of[str(row.doc_id)] == number_of[str(row.survivor_id)]
        found.add(number_of[str(row.doc_id)])
        assert row.score == pytest.approx(similarities[number_of[str(row.doc_id)]])
        assert row.score is not None
        assert row.score >= 0.8
    surely = {number for number, similarity in similarities.items() if similarity >= 0.9}
    assert len(surely) > 40
    assert len(found & surely) / len(surely) >= 0.97

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contracts.tokens import TokenShard
from training.order import Order, TokenStream, count_sequences, permute


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 700), seed=st.integers(0, 2**32), number=st.integers(0, 3))
def test_the_permutation_visits_every_sequence_once(size: int, seed: int, number: int) -> None:
    visited = permute(np.arange(size, dtype=np.uint64), size, seed, number)
    assert sorted(visited.tolist()) == list(range(size))


def test_the_permutation_never_changes_between_versions() -> None:
    assert permute(np.arange(10, dtype=np.uint64), 10, 1, 0).tolist() == [4, 9, 3, 7, 6, 5, 2, 0, 8, 1]


def make_order(ranks: int = 2, epochs: int = 2, accumulation: int = 2) -> Order:
    sequences, batch = 37, 8
    return Order(
        seed=3,
        dtype="uint16",
        shards=(TokenShard(name="part-00000.bin", tokens=sequences * 4 + 1),),
        tokenize_manifest="0" * 64,
        seq_len=4,
        sequences=sequences,
        epochs=epochs,
        steps=sequences * epochs // batch,
        batch_size=batch,
        micro_batch=batch // ranks // accumulation,
        gradient_accumulation=accumulation,
        ranks=ranks,
    )


def test_each_sequence_is_seen_at_most_once_a_pass_and_nearly_all_are() -> None:
    order = make_order()
    seen = [i for step in range(order.steps) for rank in range(2) for i in order.sequences_at(step, rank)]
    assert len(seen) == order.steps * order.batch_size
    counts = np.bincount(seen, minlength=order.sequences)
    assert counts.max() == 2
    assert (2 - counts).sum() == order.sequences * 2 - len(seen)


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_step_sees_the_same_sequences_on_any_number_of_ranks(ranks: int) -> None:
    alone, shared = make_order(ranks=1), make_order(ranks=ranks)
    for step in range(alone.steps):
        together = [i for rank in range(ranks) for i in shared.sequences_at(step, rank)]
        assert sorted(together) == sorted(alone.sequences_at(step, 0))


def test_the_stream_reads_across_shards(tmp_path) -> None:
    np.arange(0, 5, dtype="<u2").tofile(tmp_path / "a.bin")
    (tmp_path / "b.bin").write_bytes(b"")
    np.arange(5, 12, dtype="<u2").tofile(tmp_path / "c.bin")
    shards = tuple(TokenShard(name=f"{n}.bin", tokens=t) for n, t in [("a", 5), ("b", 0), ("c", 7)])
    stream = TokenStream(tmp_path, shards, "uint16")
    assert stream.tokens == 12
    for start in range(12):
        for stop in range(start + 1, 13):
            assert stream.read(start, stop).tolist() == list(range(start, stop))


def test_under_one_sequence_of_tokens_is_left_out() -> None:
    for tokens in range(1, 300):
        n = count_sequences(tokens, 16)
        assert n * 16 + 1 <= tokens or n == 0
        assert tokens - (n * 16 + 1) < 16

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contracts.tokens import TokenRange, TokenShard, write_index
from training.train.order import Order, permute, unpermute
from training.train.packing import IGNORED, MOST_PADDING, Packing, TokenStream, pack, read_packing


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 700), seed=st.integers(0, 2**32), number=st.integers(0, 3))
def test_the_permutation_visits_every_sequence_once(size: int, seed: int, number: int) -> None:
    visited = permute(np.arange(size, dtype=np.uint64), size, seed, number)
    assert sorted(visited.tolist()) == list(range(size))


def test_the_permutation_never_changes_between_versions() -> None:
    assert permute(np.arange(10, dtype=np.uint64), 10, 1, 0).tolist() == [4, 9, 3, 7, 6, 5, 2, 0, 8, 1]


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 700), seed=st.integers(0, 2**32), number=st.integers(0, 3))
def test_the_inverse_leads_back_from_every_sequence(size: int, seed: int, number: int) -> None:
    positions = np.arange(size, dtype=np.uint64)
    assert unpermute(permute(positions, size, seed, number), size, seed, number).tolist() == positions.tolist()


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


@settings(max_examples=50, deadline=None)
@given(ranks=st.sampled_from([1, 2, 4]), epochs=st.integers(1, 3), accumulation=st.sampled_from([1, 2]))
def test_a_sequence_leads_to_just_the_steps_that_see_it(ranks: int, epochs: int, accumulation: int) -> None:
    order = make_order(ranks=ranks, epochs=epochs, accumulation=accumulation)
    seen: dict[int, list[tuple[int, int]]] = {number: [] for number in range(order.sequences)}
    for step in range(order.steps):
        for rank in range(ranks):
            for number in order.sequences_at(step, rank):
                seen[number].append((step, rank))
    assert {number: order.seen_at(number) for number in seen} == {number: sorted(at) for number, at in seen.items()}


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_step_sees_the_same_sequences_on_any_number_of_ranks(ranks: int) -> None:
    alone, shared = make_order(ranks=1), make_order(ranks=ranks)
    for step in range(alone.steps):
        together = [i for rank in range(ranks) for i in shared.sequences_at(step, rank)]
        assert sorted(together) == sorted(alone.sequences_at(step, 0))


def test_the_stream_reads_across_shards(tmp_path: Path) -> None:
    np.arange(0, 5, dtype="<u2").tofile(tmp_path / "a.bin")
    (tmp_path / "b.bin").write_bytes(b"")
    np.arange(5, 12, dtype="<u2").tofile(tmp_path / "c.bin")
    shards = tuple(TokenShard(name=f"{n}.bin", tokens=t) for n, t in [("a", 5), ("b", 0), ("c", 7)])
    stream = TokenStream(tmp_path, shards, "uint16")
    assert stream.tokens == 12
    for start in range(12):
        for stop in range(start + 1, 13):
            assert stream.read(start, stop).tolist() == list(range(start, stop))


def pack_lengths(lengths: list[int], seq_len: int) -> Packing:
    sizes = np.array(lengths, np.int64)
    return pack(np.cumsum(sizes) - sizes, sizes, seq_len)


LENGTHS = st.lists(st.integers(1, 90), max_size=60)


@settings(max_examples=100, deadline=None)
@given(lengths=LENGTHS, seq_len=st.integers(2, 40))
def test_every_token_is_in_exactly_one_sequence_and_padding_is_bounded(lengths: list[int], seq_len: int) -> None:
    packing = pack_lengths(lengths, seq_len)
    seen = [t for s, n in zip(packing.starts.tolist(), packing.lengths.tolist(), strict=True) for t in range(s, s + n)]
    assert sorted(seen) == list(range(sum(lengths)))
    assert packing.lengths.sum() == packing.sizes().sum() == sum(lengths)
    assert (packing.sizes() <= seq_len).all()
    padding = packing.sequences * seq_len - sum(lengths)
    assert padding <= max(MOST_PADDING * packing.sequences * seq_len, seq_len - 1)
    first = set((np.cumsum([0, *lengths])[:-1]).tolist())
    assert {s for s, w in zip(packing.starts.tolist(), packing.whole.tolist(), strict=True) if w} == first


def pack_by_hand(lengths: list[int], seq_len: int) -> list[list[tuple[int, int, bool]]]:
    """Return what `pack` is to give, one document at a time: (start, tokens, whether a document begins) by sequence."""
    whole, rests, start = [], [], 0
    for length in lengths:
        places = [(start + at, min(seq_len, length - at), at == 0) for at in range(0, length, seq_len)]
        whole += [[one] for one in places if one[1] == seq_len]
        rests += [one for one in places if one[1] < seq_len]
        start += length
    packed: list[list[tuple[int, int, bool]]] = []
    spaces: list[int] = []
    touched: list[int] = []
    for clock, piece in enumerate(sorted(rests, key=lambda one: (-one[1], one[0]))):
        fitting = [number for number, space in enumerate(spaces) if space >= piece[1]]
        if fitting:
            number = min(fitting, key=lambda one: (spaces[one], -touched[one]))
        else:
            number = len(packed)
            packed.append([])
            spaces.append(seq_len)
            touched.append(clock)
        packed[number].append(piece)
        spaces[number] -= piece[1]
        touched[number] = clock
    packed.sort(key=lambda one: (sum(length for _, length, _ in one), one[0]))
    for count in range(len(packed) + 1):
        used = sum(length for one in packed[:count] for _, length, _ in one)
        total = len(whole) + len(packed) - count + -(-used // seq_len)
        if total * seq_len - sum(lengths) <= max(MOST_PADDING * total * seq_len, seq_len - 1):
            break
    again: list[list[tuple[int, int, bool]]] = []
    space = 0
    for start, length, begins in sorted(piece for one in packed[:count] for piece in one):
        while length:
            if not space:
                again.append([])
                space = seq_len
            taken = min(space, length)
            again[-1].append((start, taken, begins))
            start, length, begins, space = start + taken, length - taken, False, space - taken
    return sorted([*whole, *again, *(sorted(one) for one in packed[count:])])


@settings(max_examples=200, deadline=None)
@given(lengths=LENGTHS, seq_len=st.integers(2, 40))
def test_packing_whole_arrays_gives_what_packing_by_hand_gives(lengths: list[int], seq_len: int) -> None:
    packing = pack_lengths(lengths, seq_len)
    columns = (packing.starts.tolist(), packing.lengths.tolist(), packing.whole.tolist())
    pieces = list(zip(*columns, strict=True))
    bounds = packing.first.tolist()
    found = [pieces[start:stop] for start, stop in pairwise(bounds)]
    assert found == pack_by_hand(lengths, seq_len)


def test_a_packing_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    packing = pack_lengths([5, 3, 70, 8, 1], 16)
    packing.save(tmp_path / "packing")
    again = Packing.load(tmp_path / "packing", 16)
    for name in ("first", "starts", "lengths", "whole"):
        assert isinstance(getattr(again, name), np.memmap)
        assert np.array_equal(getattr(again, name), getattr(packing, name))


def test_documents_stay_whole_where_they_fit() -> None:
    generator = np.random.Generator(np.random.PCG64(2))
    lengths = generator.lognormal(4.5, 1.0, 4000).astype(int).clip(1, 5000).tolist()
    packing = pack_lengths(lengths, 256)
    pieces = np.bincount(np.searchsorted(np.cumsum(lengths), packing.starts, side="right"), minlength=len(lengths))
    fewest = np.array([-(-n // 256) for n in lengths])
    assert (pieces == fewest).mean() > 0.999, "documents are cut although they fit"
    cut = np.cumsum(lengths) // 256 - (np.cumsum(lengths) - lengths) // 256 + 1
    assert (pieces > 1).sum() < 0.6 * (cut > 1).sum(), "cutting the stream anywhere cuts far more documents"
    assert packing.sequences * 256 - sum(lengths) <= 0.01 * packing.sequences * 256


def toy_shards(tmp_path: Path, lengths: tuple[list[int], ...] = ([5, 3, 11], [], [2, 4])) -> tuple[TokenShard, ...]:
    shards, value = [], 1
    for k, some in enumerate(lengths):
        ids: list[int] = []
        ranges = []
        for length in some:
            ranges.append(TokenRange(doc_id=str(value), url="", epoch=1, offset=len(ids), length=length, bytes=1))
            ids += [*range(value, value + length - 1), 0]
            value += 100
        np.array(ids, "<u2").tofile(tmp_path / f"part-{k:05d}.bin")
        write_index(tmp_path / f"part-{k:05d}.parquet", ranges)
        shards.append(TokenShard(name=f"part-{k:05d}.bin", tokens=len(ids)))
    return tuple(shards)


def test_a_row_is_the_token_before_the_pieces_and_padding(tmp_path: Path) -> None:
    shards = toy_shards(tmp_path)
    packing, stream = read_packing(tmp_path, shards, 8), TokenStream(tmp_path, shards, "uint16")
    rows = packing.rows(range(packing.sequences), stream, 0)
    assert rows.tokens.tolist() == [
        [0, 1, 2, 3, 4, 0, 101, 102, 0],  # two whole documents
        [0, 201, 202, 203, 204, 205, 206, 207, 208],  # the beginning of a long one
        [208, 209, 210, 0, 401, 402, 403, 0, 0],  # its rest, a whole document, padding
        [0, 301, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert rows.targets[2].tolist() == [209, 210, 0, 401, 402, 403, 0, IGNORED]
    assert rows.targets[0].tolist() == [1, 2, 3, 4, 0, 101, 102, 0]
    assert rows.positions[0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    valid = rows.targets[rows.targets != IGNORED]
    ids = np.concatenate([np.fromfile(tmp_path / shard.name, "<u2") for shard in shards])
    assert sorted(valid.tolist()) == sorted(ids.tolist())


def test_the_rest_of_a_document_after_another_is_not_predicted_from_it() -> None:
    packing = pack_lengths([13, 3, 3], 8)
    place = int(np.flatnonzero(packing.lengths == 5)[0])
    assert not packing.whole[place]
    stream = type("Stream", (), {"dtype": np.dtype("<u2"), "read": lambda self, a, b: np.arange(a, b) + 1})()
    rows = Packing(8, np.array([0, 2]), np.array([13, 8]), np.array([3, 5]), np.array([True, False])).rows(
        [0], stream, 0
    )
    assert rows.targets.tolist() == [[14, 15, 16, IGNORED, 10, 11, 12, 13]]


def test_tokens_seen_counts_no_padding() -> None:
    packing = pack_lengths([7, 7, 7, 7, 7], 8)
    order = make_order().model_copy(
        update={"sequences": packing.sequences, "batch_size": packing.sequences, "steps": 2, "seq_len": 8}
    )
    assert order.tokens_seen(packing) == 2 * 35

"""The second pass, by ranges of keys: who shares a URL, a payload, a text or a band with whom.

Every range is one task that reads its slice of each part's sorted keys, so its memory depends on the range and not
on the corpus. Exact sharers come out as members of groups (checked on 128 bits); sharers of a band as pairs of
texts that are worth comparing.

Equal texts share every band, so of them only the preferred one is paired. In a band that many share (boilerplate),
each is paired with the `LEADERS` most preferred, and not with all: the work grows with the number of sharers and
never with its square. Two lookalikes that a hot band leaves apart meet in another of their bands.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tasks.contracts.manifest import Counts
from tasks.dedup.corpus import Corpus, Keys, Numbers, Range, each_once, first_places, repeated
from tasks.dedup.shingles import mix
from tasks.dedup.signatures import BAND, KIND_BITS, KINDS
from tasks.engine.shards import ShardWork

LEADERS: Final = 16

# No file and no task holds fewer pairs than this, however little memory is allowed.
FEWEST_PAIRS: Final = 256

GROUP: Final = np.dtype([("kind", "u1"), ("key", "<u8", 2), ("document", "<u8")])
PAIR: Final = np.dtype([("key", "<u8", 2), ("left", "<u8"), ("right", "<u8")])


def find_candidates(
    corpus: Corpus, ranges: dict[str, tuple[int, int]], threshold: float, held: int, work: ShardWork, folder: Path
) -> Counts:
    """Write one range's groups of exact sharers and its pairs to compare.

    Args:
        ranges: work name → first key, and the one after the last.
        threshold: pairs whose sizes alone rule out this Jaccard similarity are left out.
        held: entries sorted at a time, about 100 bytes each; a key that more share is read in pieces.
    """
    runs = _Runs(folder, work.name, held)
    with (folder / f"{work.name}.groups.bin").open("wb") as stream:
        for chosen in corpus.ranges(*ranges[work.name], held):
            for groups, pairs in _share_range(corpus, chosen, threshold, held):
                groups.tofile(stream)
                runs.add(pairs)
    runs.write()
    return Counts(in_=0, out=0)


class _Runs:
    """Writes pairs as files that are each sorted and each small enough to be sorted in memory."""

    def __init__(self, folder: Path, name: str, held: int) -> None:
        self._folder, self._name, self._held = folder, name, max(held, FEWEST_PAIRS)
        self._waiting: list[NDArray[Any]] = [np.zeros(0, PAIR)]
        self._written = 0

    def add(self, pairs: NDArray[Any]) -> None:
        self._waiting.append(pairs)
        if sum(map(len, self._waiting)) >= self._held:
            self.write()

    def write(self) -> None:
        pairs = unique_pairs(np.concatenate(self._waiting))
        if len(pairs) or not self._written:
            pairs.tofile(self._folder / f"{self._name}.pairs.{self._written:05d}.bin")
            self._written += 1
        self._waiting = [np.zeros(0, PAIR)]


def unique_pairs(pairs: NDArray[Any]) -> NDArray[Any]:
    """Return each pair of texts once, sorted by its key."""
    firsts = np.flatnonzero(first_places(pairs["key"]) == np.arange(len(pairs)))
    keys = pairs["key"][firsts]
    return pairs.take(firsts[np.lexsort((keys[:, 1], keys[:, 0]))])


Found = tuple[NDArray[Any], NDArray[Any]]
_NO_GROUPS: Final = np.zeros(0, GROUP)
_NO_PAIRS: Final = np.zeros(0, PAIR)


def _share_range(corpus: Corpus, chosen: Range, threshold: float, held: int) -> Iterator[Found]:
    """Yield the groups and pairs of a range that holds all sharers of each of its keys."""
    if len(chosen) > held:
        yield from _share_one_key(corpus, chosen, threshold, held)
        return
    found = list(corpus.entries(chosen))
    if not found:
        return
    keys, numbers = map(np.concatenate, zip(*found, strict=True))
    shared = repeated(keys)
    keys, numbers = keys[shared], numbers[shared]
    near = (keys & KIND_BITS) == BAND
    yield _groups(corpus, keys[~near], numbers[~near]), _NO_PAIRS
    for pairs in _pairs(corpus, keys[near], numbers[near], threshold):
        yield _NO_GROUPS, pairs


def _groups(corpus: Corpus, keys: Keys, numbers: Numbers) -> NDArray[Any]:
    """Return the entries whose whole 128-bit key is shared, as members of groups."""
    kinds = (keys & KIND_BITS).astype(np.uint8)
    members = np.zeros(len(keys), GROUP)
    records = corpus.documents(numbers)
    members["kind"], members["document"] = kinds, numbers
    for kind, name in enumerate(KINDS[:BAND]):
        members["key"][kinds == kind] = records[name][kinds == kind]
    members = members[np.lexsort((numbers, members["key"][:, 1], members["key"][:, 0], kinds))]
    same = np.zeros(len(members) + 1, dtype=np.bool_)
    same[1:-1] = (members["key"][1:] == members["key"][:-1]).all(axis=1) & (members["kind"][1:] == members["kind"][:-1])
    return members[same[1:] | same[:-1]]


def _pairs(corpus: Corpus, keys: Keys, numbers: Numbers, threshold: float) -> Iterator[NDArray[Any]]:
    """Yield the pairs to compare among the sharers of each band; the pairs of a leader each once."""
    if not len(keys):
        return
    known, which = np.unique(numbers, return_inverse=True)
    records = corpus.documents(known)
    bucket = np.cumsum(np.concatenate([[0], keys[1:] != keys[:-1]]))
    # In a band with few sharers each is paired with all: only where there are more does it matter who leads.
    place = np.arange(len(known))
    many = each_once(which[np.bincount(bucket)[bucket] > LEADERS + 1])
    place[many[preference_order(records["order"][many], known[many])]] = many
    document_at = np.argsort(place)
    # A text's place is that of its first document, which stands for all of them.
    place = first_places(records["text"][document_at])[place]
    # One entry for each text of a band, bands side by side, the preferred text first.
    entries = each_once(bucket * len(known) + place[which])
    bucket, texts = entries // len(known), document_at[entries % len(known)]
    starts = np.flatnonzero(np.concatenate([[True], bucket[1:] != bucket[:-1]]))
    sizes = np.diff(np.append(starts, len(bucket)))
    within = np.arange(len(bucket)) - np.repeat(starts, sizes)
    for leader in range(min(LEADERS, int(sizes.max()) - 1)):
        members = np.flatnonzero(within > leader)
        # Lookalikes share many bands: two places as one number, so that each pair is left once before it is described.
        pairs = each_once(texts[members - within[members] + leader] * len(known) + texts[members])
        yield _pair(records, known, pairs // len(known), pairs % len(known), threshold)


def _pair(
    records: NDArray[Any], known: Numbers, left: NDArray[np.int64], right: NDArray[np.int64], threshold: float
) -> NDArray[Any]:
    """Return pairs of documents that may reach the threshold: Jaccard is at most the smaller size over the larger."""
    sizes = records["set_size"].astype(np.float64)
    fit = np.minimum(sizes[left], sizes[right]) >= threshold * np.maximum(sizes[left], sizes[right])
    left, right = left[fit], right[fit]
    pairs = np.zeros(len(left), PAIR)
    pairs["key"] = pair_keys(records["text"][left], records["text"][right])
    pairs["left"], pairs["right"] = known[left], known[right]
    return pairs


def pair_keys(left: Keys, right: Keys) -> Keys:
    """Return 128 bits that name a pair of texts, whichever of them comes first."""
    swap = (left[:, 0] > right[:, 0])[:, None]
    low, high = np.where(swap, right, left), np.where(swap, left, right)
    return mix(low + mix(high + np.arange(1, 3, dtype=np.uint64)))


def preference_order(orders: Keys, numbers: Numbers) -> NDArray[np.int64]:
    """Return the places of documents from the most preferred to the least; the document number decides last."""
    return np.lexsort((numbers, *orders.T[::-1]))


def _share_one_key(corpus: Corpus, chosen: Range, threshold: float, held: int) -> Iterator[Found]:
    """Do the same for a key that more documents share than are held in memory: its entries are read twice."""
    kind = chosen.start & int(KIND_BITS)
    if kind != BAND:
        for chunk in _chunks(corpus, chosen, held):
            # Not looking for partners here: all but a hash's accidental sharers have one in some chunk.
            records = corpus.documents(chunk)
            members = np.zeros(len(chunk), GROUP)
            members["kind"], members["document"] = kind, chunk
            members["key"] = records[KINDS[kind]]
            yield members, _NO_PAIRS
        return
    leaders = np.zeros(0, np.int64)
    for chunk in _chunks(corpus, chosen, held):
        leaders = _most_preferred_texts(corpus, np.concatenate([leaders, chunk]))
    for chunk in _chunks(corpus, chosen, held):
        known = np.concatenate([leaders, chunk])
        records = corpus.documents(known)
        for leader in range(len(leaders)):
            others = np.arange(leader + 1, len(known))
            others = others[(records["text"][others] != records["text"][leader]).any(axis=1)]
            yield _NO_GROUPS, _pair(records, known, np.full(len(others), leader), others, threshold)


def _chunks(corpus: Corpus, chosen: Range, held: int) -> Iterator[Numbers]:
    waiting: list[Numbers] = []
    for _, numbers in corpus.entries(chosen):
        waiting.append(numbers)
        if sum(map(len, waiting)) >= held:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)


def _most_preferred_texts(corpus: Corpus, numbers: Numbers) -> Numbers:
    """Return the first LEADERS documents in order of preference that are of different texts."""
    numbers = each_once(numbers)
    records = corpus.documents(numbers)
    order = preference_order(records["order"], numbers)
    chosen: list[int] = []
    seen: set[bytes] = set()
    for place in order:
        text = records["text"][place].tobytes()
        if text not in seen:
            seen.add(text)
            chosen.append(int(numbers[place]))
            if len(chosen) == LEADERS:
                break
    return np.array(chosen, dtype=np.int64)

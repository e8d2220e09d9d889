r"""What makes two texts "the same": one normal form for exact duplicates, hashed word n-grams for near ones.

A shingle is a run of `size` words. Words are hashed, and shingles made of them, for many texts at a time in numpy,
as splitting and hashing word by word in Python takes several times as long as all the rest of dedup. A shingle is
kept as 32 bits: what MinHash permutes, and enough for a true Jaccard (two texts of 20,000 shingles that share none
are expected to agree by accident in 0.1).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tasks.contracts.normal_form import normal_bytes
from tasks.contracts.scripts import NO_SPACE_SCRIPTS

Shingles = NDArray[np.uint32]
Words64 = NDArray[np.uint64]

_UNSPACED = re.compile(f"[{NO_SPACE_SCRIPTS}]")
# Vowel signs and other combining marks, which `\w` leaves out although they are inside words (Arabic, Hebrew, the
# scripts of India; not the dandas U+0964 and U+0965, which end sentences).
_WORD_CHARACTER = re.compile(r"[\w\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0963\u0966-\u0dff]")

_SPACE: Final = 0x20
_ASCII_WORDS: Final = bytes(c if chr(c).isalnum() or c in b"_" else _SPACE for c in range(128)) + bytes(range(128, 256))

# Bytes hashed in one piece: the numbers of a piece (8 bytes for each byte of text) stay in the processor's cache.
_PIECE: Final = 1 << 17


def _odd_numbers(count: int, name: str) -> Words64:
    """Return fixed 64-bit odd numbers, from SHA-256 so that nobody has to believe a table."""
    digests = b"".join(hashlib.sha256(f"{name}/{i}".encode()).digest()[:8] for i in range(count))
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64) | np.uint64(1)


_BASE: Final = _odd_numbers(1, "base")[0]
_INVERSE: Final = np.uint64(pow(int(_BASE), -1, 1 << 64))
_PLACES: Final = _odd_numbers(50, "place in a shingle")
_BYTES: Final = np.where(np.arange(256) == _SPACE, np.uint64(0), _odd_numbers(256, "byte"))


def _powers(base: np.uint64, count: int) -> Words64:
    factors = np.full(count, base, dtype=np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


_POWERS: Final = _powers(_BASE, _PIECE + 2)
_INVERSES: Final = _powers(_INVERSE, _PIECE + 2)


def mix(numbers: Words64) -> Words64:
    """Scramble 64-bit numbers so that close ones get far apart (the finalizer of MurmurHash3, a bijection)."""
    mixed = numbers ^ (numbers >> np.uint64(33))
    mixed *= np.uint64(0xFF51AFD7ED558CCD)
    mixed ^= mixed >> np.uint64(33)
    mixed *= np.uint64(0xC4CEB9FE1A85EC53)
    mixed ^= mixed >> np.uint64(33)
    return mixed


def words(text: str) -> list[str]:
    r"""Split a text into its normalised words: runs of `\w`, and single characters of scripts without spaces.

    >>> words("Don't panic, 世界!")
    ['don', 't', 'panic', '世', '界']
    """
    return [word.decode("utf-8", "surrogatepass") for word in word_bytes(normal_bytes(text)).split()]


_BEYOND_ASCII = re.compile("[^\x00-\x7f]+")


class _Characters(dict[int, str]):
    """What `str.translate` makes of each character beyond ASCII: itself, itself between spaces, or a space."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if _UNSPACED.match(character):
            found = f" {character} "
        else:
            found = character if _WORD_CHARACTER.match(character) else " "
        if len(self) < 1 << 16:
            self[code] = found
        return found


_CHARACTERS: Final = _Characters()


def _translated(run: re.Match[str]) -> str:
    return run[0].translate(_CHARACTERS)


def word_bytes(normal: bytes) -> bytes:
    """Return the normal form with every byte that is no part of a word turned into a space."""
    if not normal.isascii():
        text = _BEYOND_ASCII.sub(_translated, normal.decode("utf-8", "surrogatepass"))
        normal = text.encode("utf-8", "surrogatepass")
    return normal.translate(_ASCII_WORDS)


@dataclass(frozen=True, slots=True)
class ShingleSets:
    """The shingle sets of several texts.

    Attributes:
        values: all sets back to back, each sorted.
        sizes: how many belong to each text.
    """

    values: Shingles
    sizes: NDArray[np.int64]

    def __iter__(self) -> Iterator[Shingles]:
        return iter(np.split(self.values, np.cumsum(self.sizes)[:-1])) if len(self.sizes) else iter(())


def shingle_sets(normals: Sequence[bytes], *, size: int) -> ShingleSets:
    """Return the sets of hashed word n-grams of texts given in normal form; empty where there are fewer words.

    So a text shorter than one shingle is never a near duplicate of anything: there is too little to compare, and
    only equality counts for it.
    """
    pieces = [word_bytes(normal) for normal in normals]
    hashes, starts = _hash_words(b" ".join(pieces))
    bounds = np.searchsorted(starts, np.cumsum([0, *(len(piece) + 1 for piece in pieces)]))
    counts = np.maximum(np.diff(bounds) - (size - 1), 0)
    if not counts.sum():
        return ShingleSets(np.zeros(0, np.uint32), np.zeros(len(normals), np.int64))
    grams = _grams(hashes, size)
    # The text's number above the hash: one sort orders all sets, and what crosses a border is left out before it.
    owner = np.repeat(np.arange(len(normals), dtype=np.uint64), counts)
    first = np.repeat(bounds[:-1] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
    keyed = grams[np.arange(len(owner)) + first] | (owner << np.uint64(32))
    keyed.sort()
    new = np.empty(len(keyed), dtype=np.bool_)
    new[0] = True
    np.not_equal(keyed[1:], keyed[:-1], out=new[1:])
    keyed = keyed[new]
    sizes = np.bincount((keyed >> np.uint64(32)).astype(np.int64), minlength=len(normals))
    return ShingleSets(keyed.astype(np.uint32), sizes.astype(np.int64))


def shingles_in_order(words: bytes, *, size: int) -> Shingles:
    """Return the shingle that begins at each of these words (`word_bytes`), as far as there are enough after it."""
    hashes, _ = _hash_words(words)
    return _grams(hashes, size).astype(np.uint32) if len(hashes) >= size else np.zeros(0, np.uint32)


def _grams(hashes: Words64, size: int) -> Words64:
    """Return the 32-bit hash of each run of `size` words."""
    span = len(hashes) - (size - 1)
    grams = hashes[:span] * _PLACES[0]
    for place in range(1, size):
        grams += hashes[place : place + span] * _PLACES[place]
    return mix(grams) >> np.uint64(32)


def shingles(text: str, *, size: int) -> Shingles:
    """Return the sorted shingle set of one text."""
    return shingle_sets([normal_bytes(text)], size=size).values


def _hash_words(buffer: bytes) -> tuple[Words64, NDArray[np.int64]]:
    """Return the hash of each space-delimited word, and where it starts.

    The hash is a polynomial in the bytes' random numbers modulo 2^64, then mixed: with running sums every word's
    value is a difference of two, without a loop over words.
    """
    hashes: list[Words64] = []
    starts: list[NDArray[np.int64]] = []
    at = 0
    while at < len(buffer):
        stop = len(buffer) if len(buffer) - at <= _PIECE else buffer.rfind(b" ", at + 1, at + _PIECE) + 1
        if stop <= at + 1 and stop < len(buffer):  # one word longer than a piece: cut like any other
            stop = at + _PIECE
        piece = np.frombuffer(buffer, dtype=np.uint8, count=stop - at, offset=at)
        inside = np.zeros(len(piece) + 2, dtype=np.bool_)
        np.not_equal(piece, _SPACE, out=inside[1:-1])
        edges = np.flatnonzero(inside[1:] != inside[:-1])
        begins, ends = edges[0::2], edges[1::2]
        sums = np.zeros(len(piece) + 1, dtype=np.uint64)
        values = _BYTES[piece]
        values *= _POWERS[: len(piece)]
        np.cumsum(values, out=sums[1:])
        hashes.append(mix((sums[ends] - sums[begins]) * _INVERSES[begins]))
        starts.append(begins + at)
        at = stop
    if not hashes:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    return np.concatenate(hashes), np.concatenate(starts)


def jaccard(left: Shingles, right: Shingles, *, left_size: int, right_size: int) -> float:
    """Return the Jaccard similarity of two shingle sets (intersection over union).

    A set larger than the cap is given by its smallest hashes only (`left_size` is its true size). The two are then
    compared over the range of hash values that both samples cover in full, which estimates the similarity of the
    whole texts; comparing only their beginnings would not.
    """
    if not len(left) or not len(right):
        return 0.0
    if len(left) < left_size or len(right) < right_size:
        bounds = [kept[-1] for kept, size in ((left, left_size), (right, right_size)) if len(kept) < size]
        left, right = (kept[: np.searchsorted(kept, min(bounds), side="right")] for kept in (left, right))
    merged = np.concatenate((left, right))
    merged.sort()
    both = int(np.count_nonzero(merged[1:] == merged[:-1]))
    return both / (len(merged) - both) if len(merged) else 0.0

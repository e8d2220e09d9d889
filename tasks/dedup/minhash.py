"""MinHash signatures and their bands: which texts are worth comparing.

datasketch chooses the bands, and its permutations make the signatures; they are applied here to many texts at a
time, as its own `MinHash` takes one text and costs several times as much, with equal values (`Permutations`
checks that at each start). rensa is the other backend: another kind of MinHash, in Rust.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from tasks.contracts.errors import ParamsError, ToolMissingError
from tasks.dedup.shingles import ShingleSets, mix

Backend = Literal["datasketch", "rensa"]
Signatures = NDArray[np.uint32]

# datasketch 2.0 changed its default, so it is named here and stands in the shard key.
SCHEME: Final = "affine32"

_FOUND_ABOVE: Final = 0.97

# Shingles permuted in one go: with the two arrays of a permutation they fit into a processor's second-level cache.
_BLOCK: Final = 1 << 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """How texts are sketched: everything that decides a signature's bytes."""

    shingle_words: int
    max_shingles: int
    bands: int
    rows: int
    seed: int
    backend: Backend

    def identity(self) -> dict[str, JsonValue]:
        """Return what belongs into a shard key."""
        scheme = SCHEME if self.backend == "datasketch" else "r-minhash"
        return {**{name: getattr(self, name) for name in self.__dataclass_fields__}, "scheme": scheme}

    def libraries(self) -> list[str]:
        """Return the distributions whose versions belong into a shard key."""
        return [self.backend, "numpy", "pyarrow"]


def choose_bands(threshold: float, num_perm: int, missed_weight: float) -> tuple[int, int]:
    """Return (bands, rows) as datasketch finds them best for a threshold.

    A pair of similarity s shares a band with probability 1 - (1 - s^rows)^bands (Leskovec, Rajaraman and Ullman,
    Mining of Massive Datasets, section 3.4.2). What is weighed is the area of missed pairs above the threshold
    against that of useless candidates below it; these are verified, so a missed pair should weigh far more.

    >>> choose_bands(0.8, 128, 0.95)
    (16, 8)

    Raises:
        ParamsError: even the best bands would miss pairs well above the threshold.
    """
    # datasketch takes a second to import (SciPy); params.yaml is checked without it.
    from datasketch import MinHashLSH

    found = MinHashLSH(threshold=threshold, num_perm=num_perm, weights=(1 - missed_weight, missed_weight))
    if found_with(min(1.0, threshold + 0.1), found.b, found.r) < _FOUND_ABOVE:
        raise ParamsError(
            "too few permutations to find near duplicates at this threshold",
            where="params.yaml, dedup.num_perm",
            expected=f"bands that find {_FOUND_ABOVE:.0%} of the pairs 0.1 above the threshold",
            found=f"{found.b} bands of {found.r} rows for num_perm = {num_perm}, threshold = {threshold}",
            fix="raise num_perm or missed_weight, or give bands and rows",
        )
    return found.b, found.r


def found_with(similarity: float, bands: int, rows: int) -> float:
    """Return the probability with which a pair becomes a candidate."""
    return float(1 - (1 - similarity**rows) ** bands)


class Hasher(Protocol):
    """Makes one signature for each non-empty shingle set."""

    def __call__(self, sets: ShingleSets) -> Signatures: ...


def hasher(sketch: Sketch) -> Hasher:
    """Return the backend of a sketch."""
    count = sketch.bands * sketch.rows
    return _Rensa(count, sketch.seed) if sketch.backend == "rensa" else Permutations(count, sketch.seed)


class Permutations:
    """datasketch's permutations of 32-bit hashes, applied to many sets at once.

    Raises:
        ToolMissingError: this version of datasketch permutes otherwise than the versions this was written for.
    """

    def __init__(self, count: int, seed: int) -> None:
        from datasketch import MinHash

        self._model = MinHash(num_perm=count, seed=seed, scheme=SCHEME, hashfunc=int)
        self._factors, self._offsets = self._model.permutations
        trial = np.arange(3, dtype=np.uint32) * np.uint32(0x3C6EF372)
        expected = self._model.copy()
        expected.update_batch(trial.tolist())
        if not np.array_equal(expected.hashvalues, self(ShingleSets(trial, np.array([3])))[0]):
            raise ToolMissingError(
                "the installed datasketch makes other signatures than expected",
                where="tasks/dedup/minhash.py",
                expected=f"the permutations of scheme {SCHEME} as in datasketch 2.0",
                fix="install the version of datasketch that constraints.txt names, or set dedup.backend to rensa",
            )

    def __call__(self, sets: ShingleSets) -> Signatures:
        """Return the signatures of sets of which none is empty: sets x permutations."""
        signatures = np.full((len(self._factors), len(sets.sizes)), np.uint32(0xFFFFFFFF))
        stops = np.cumsum(sets.sizes)
        starts = stops - sets.sizes
        for at in range(0, len(sets.values), _BLOCK):
            # The sets that this block touches; one that goes on in the next block takes the minimum of both.
            first = int(np.searchsorted(stops, at, side="right"))
            last = int(np.searchsorted(starts, min(at + _BLOCK, len(sets.values)), side="left"))
            mixed = _mix32(sets.values[at : at + _BLOCK])
            borders = np.maximum(starts[first:last] - at, 0)
            permuted = np.empty_like(mixed)
            for number, (factor, offset) in enumerate(zip(self._factors, self._offsets, strict=True)):
                np.multiply(mixed, factor, out=permuted)
                permuted += offset
                row = signatures[number, first:last]
                np.minimum(row, np.minimum.reduceat(permuted, borders), out=row)
        return np.ascontiguousarray(signatures.T)


def _mix32(numbers: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the finalizer of MurmurHash3 for 32 bits, which datasketch's affine schemes begin with."""
    mixed = numbers ^ (numbers >> np.uint32(16))
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    return mixed


class _Rensa:
    """rensa's R-MinHash (Dahlgaard, Knudsen and Thorup, Fast Similarity Sketching, 2017)."""

    def __init__(self, count: int, seed: int) -> None:
        os.environ.setdefault("RAYON_NUM_THREADS", "1")  # shards are what is spread over processors
        try:
            import rensa
        except ImportError as error:
            raise ToolMissingError(
                "the package rensa is not installed",
                where="params.yaml, dedup.backend",
                fix="pip install rensa, or set dedup.backend to datasketch",
            ) from error
        self._make = rensa.RMinHash.digest_matrix_from_flat_token_hashes
        self._count, self._seed = count, seed

    def __call__(self, sets: ShingleSets) -> Signatures:
        borders = np.concatenate([[0], np.cumsum(sets.sizes)]).astype(np.uint64)
        matrix = self._make(sets.values.astype(np.uint64), borders, self._count, self._seed)
        return np.array(matrix.to_rows(), dtype=np.uint32)


def band_keys(signatures: Signatures, bands: int) -> NDArray[np.uint64]:
    """Return sets x bands: two signatures that agree on all rows of a band have equal keys there.

    Different bands, and different rows, may share a key by accident, which costs a comparison and no more.
    """
    shaped = signatures.reshape(len(signatures), bands, -1).astype(np.uint64)
    keys = np.zeros(shaped.shape[:2], dtype=np.uint64)
    for row in range(shaped.shape[2]):
        keys = mix(keys + shaped[:, :, row])
    return mix(keys + np.arange(1, bands + 1, dtype=np.uint64))

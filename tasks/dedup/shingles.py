"""What makes two texts "the same": one normal form for exact duplicates, hashed word 5-grams for near ones."""

from __future__ import annotations

import hashlib
import re
import unicodedata

import numpy as np
import xxhash
from numpy.typing import NDArray

Shingles = NDArray[np.uint64]

# Scripts written without spaces between words: each character counts as a word, as a 5-gram of whole sentences
# would find nothing. Thai, Lao, Burmese, Khmer, kana, CJK ideographs (with extension A and the compatibility block,
# and the supplementary planes).
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Vowel signs and other combining marks, which `\w` leaves out although they are inside words (Arabic, Hebrew, the
# scripts of India; not the dandas U+0964 and U+0965, which end sentences).
_MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0963\u0966-\u0dff"
_WORD = re.compile(rf"[{_UNSPACED}]|(?:[^\W{_UNSPACED}]|[{_MARKS}])+")


def normalise(text: str) -> str:
    """Return the form in which two exact duplicates are equal: Unicode NFKC, case folded, white space collapsed.

    >>> normalise("  Two\\u00a0 Words\\n") == normalise("two WORDS")
    True
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def text_key(text: str) -> str:
    """Return 128 bits of SHA-256 over the normal form, as hex: equal for exact duplicates only."""
    return hashlib.sha256(normalise(text).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def words(text: str) -> list[str]:
    r"""Split a normalised text into words: runs of `\w`, and single characters of scripts without spaces.

    >>> words("don't panic, 世界!")
    ['don', 't', 'panic', '世', '界']
    """
    return _WORD.findall(text)


def shingles(text: str, *, size: int) -> Shingles:
    """Return the set of hashed word n-grams of a text, sorted; empty when it has fewer than `size` words.

    So a text shorter than one shingle is never a near duplicate of anything: there is too little to compare, and
    only equality counts for it.
    """
    found = words(normalise(text))
    grams = {" ".join(found[start : start + size]) for start in range(len(found) - size + 1)}
    hashes = (xxhash.xxh3_64_intdigest(gram.encode("utf-8", "surrogatepass")) for gram in grams)
    return np.unique(np.fromiter(hashes, dtype=np.uint64, count=len(grams)))


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
    small, large = (left, right) if len(left) <= len(right) else (right, left)
    if not len(small):
        return 0.0
    places = np.minimum(np.searchsorted(large, small), len(large) - 1)
    both = int(np.count_nonzero(large[places] == small))
    return both / (len(small) + len(large) - both)

"""A text's words as datatrove splits them, split once and shared by every rule.

datatrove's English splitter is spaCy's, which splits at white space first and then each piece by itself: so the
lengths and kinds of a piece's words are found once and looked up from then on. Rules get numbers in arrays (`Words`),
not strings, since nearly all that they ask can be answered for all words at a time. Other languages are split by
datatrove itself.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from datatrove.utils.text import PUNCTUATION_SET, split_into_sentences
from datatrove.utils.word_tokenizers import SpaCyTokenizer, load_tokenizer_assignments, load_word_tokenizer

from tasks.contracts.languages import language_code
from tasks.filter.spacy_pieces import Pieces

Hashes = npt.NDArray[np.uint64]

# Characters remembered (each piece counts a hundred more) before starting afresh: some 120 MiB, and far more than
# the vocabulary of a shard.
REMEMBERED = 100_000_000
SPLIT_BY_SPACES = frozenset({"en"})
# spaCy may fail on the name of its own attribute, depending on what it read before; datatrove takes it out then.
_ATTRIBUTE = "IS_ALPHA"
# What is known of a word is one number: its length above these bits.
_LETTER, _SYMBOL, _ENDS, _PUNCTUATION = 1, 2, 4, 8
_LENGTH = 4
_LOWEST = 0 if sys.byteorder == "little" else 3
# For the lowest byte of what is known of a word: E where it ends a sentence, W where it is a word; and the marks.
_KINDS = bytes(ord("E" if byte & _ENDS else "W") for byte in range(256))
_MARKS = bytes(byte for byte in range(256) if byte & _PUNCTUATION and not byte & _ENDS)
_SPACES = re.compile(r"(\s+)")
# Any odd number serves as the base of the polynomial hash modulo 2**64.
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 1 << 64)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class Words:
    """The words of one text, as numbers.

    Args:
        text: the text.
        written: its words, written without a space.
        known: what is known of each word, four bytes each (`Vocabulary`).

    Attributes:
        text: the text.
        lengths: each word's characters.
        bounds: the characters of all words before each, and of all.
    """

    def __init__(self, text: str, written: str, known: bytes) -> None:
        self.text = text
        self._written = written
        self._known = np.frombuffer(known, np.uint32)
        self.lengths = (self._known >> _LENGTH).astype(np.int64)
        self.bounds = np.zeros(len(self.lengths) + 1, np.int64)
        np.cumsum(self.lengths, out=self.bounds[1:])

    def __len__(self) -> int:
        return len(self._known)

    @property
    def symbols(self) -> npt.NDArray[np.bool_]:
        """Return, for each word, whether it is punctuation only (datatrove's set of marks)."""
        symbols: npt.NDArray[np.bool_] = (self._known & _SYMBOL) != 0
        return symbols

    @property
    def letters(self) -> npt.NDArray[np.bool_]:
        """Return, for each word, whether a letter is in it."""
        letters: npt.NDArray[np.bool_] = (self._known & _LETTER) != 0
        return letters

    def count_of(self, words: Iterable[str]) -> int:
        """Return how many of `words`, which differ, stand in the text."""
        mine = self.joined(1)
        return sum(bool((mine == one).any()) for one in hashes_of(tuple(dict.fromkeys(filter(None, words)))))

    def spans(self, n: int) -> npt.NDArray[np.int64]:
        """Return the characters of each n words in a row, without what stands between them."""
        return self.bounds[n:] - self.bounds[:-n]

    @cached_property
    def _hashed(self) -> tuple[Hashes, Hashes]:
        """Return a sum at each bound, of which two give the hash of what is between, and a factor at each word's end.

        A text's polynomial hash is its characters, mixed to 64 bits, each times the base to the power of the
        characters after it. Divided by the base to the power of all, that is a difference of running sums.
        """
        codes = np.frombuffer(self._written.encode("utf-32-le", "surrogatepass"), np.uint32)
        sums = np.zeros(len(codes) + 1, np.uint64)
        np.cumsum(_mixed_numbers(codes + 1) * _powers(_INVERSE, len(codes)), out=sums[1:])
        return sums[self.bounds], _powers(_BASE, len(codes))[self.bounds[1:] - 1]

    @cached_property
    def _sequences(self) -> list[Hashes]:
        return [_mixed(self.joined(1) ^ _mixed_numbers(self.lengths))]

    def sequences(self, n: int) -> Hashes:
        """Return a hash of each n words in a row: equal where the words are equal."""
        made = self._sequences
        while len(made) < n:
            made.append(made[-1][:-1] * np.uint64(_BASE) + made[0][len(made) :])
        return made[n - 1]

    def joined(self, n: int) -> Hashes:
        """Return a hash of each n words in a row, written without a space: "ab c" and "a bc" are equal.

        Two different n-grams of a page get one hash about once in 10**12 pages.
        """
        sums, factors = self._hashed
        return (sums[n:] - sums[:-n]) * factors[n - 1 :]


@cache
def hashes_of(words: tuple[str, ...]) -> Hashes:
    """Return the hash of each word by itself, as `Words.joined` gives it."""
    known = b"".join(_packed(len(word), 0) for word in words)
    return Words("", "".join(words), known).joined(1)


def _mixed_numbers(numbers: npt.NDArray[np.integer[Any]]) -> Hashes:
    """Return whole numbers mixed to 64 bits; small ones, as those of nearly all characters, are looked up."""
    small = _small_numbers()
    return small[numbers] if not len(numbers) or numbers.max() < len(small) else _mixed(numbers.astype(np.uint64))


@cache
def _small_numbers() -> Hashes:
    return _mixed(np.arange(1 << 16, dtype=np.uint64))


def _mixed(values: Hashes) -> Hashes:
    """Return each number mixed to 64 bits (the finaliser of SplitMix64: Steele, Lea, Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * _MIX[0]
    values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return values ^ (values >> np.uint64(31))


def _powers(base: int, count: int) -> Hashes:
    """Return the powers of a base from 0 on, at least `count`; those of most texts are kept."""
    few = 1 << 16
    return (_few_powers(base, few) if count <= few else _make_powers(base, count))[:count]


def _make_powers(base: int, count: int) -> Hashes:
    powers = np.full(count, base, np.uint64)
    powers[0] = 1
    return np.cumprod(powers)


_few_powers = cache(_make_powers)


class Vocabulary(dict[str, bytes]):
    """What is known of the words of each piece, four bytes each; a piece is split when it is first looked up.

    Args:
        split: returns the words of a piece.
        ends: the words that end a sentence.
    """

    def __init__(self, split: Callable[[str], Sequence[str]], ends: frozenset[str]) -> None:
        self._split = split
        self._ends = ends
        self._of_marks = lru_cache(1 << 14)(self._describe)
        self.size = 0

    def __missing__(self, piece: str) -> bytes:
        if self.size > REMEMBERED:
            self.clear()
            self.size = 0
        words = self._split(piece)
        known = self[piece] = b"".join(
            [
                _with_letters(len(word)) if word.isalpha() or any(map(str.isalpha, word)) else self._of_marks(word)
                for word in words
            ]
        )
        self.size += len(piece) + 100
        return known

    def _describe(self, word: str) -> bytes:
        kind = _SYMBOL if PUNCTUATION_SET.issuperset(word) else 0
        kind |= (_ENDS if word in self._ends else 0) | (_PUNCTUATION if _is_punctuation(word) else 0)
        return _packed(len(word), kind)


def _packed(length: int, kind: int) -> bytes:
    return (length << _LENGTH | kind).to_bytes(4, sys.byteorder)


@cache
def _with_letters(length: int) -> bytes:
    return _packed(length, _LETTER)


def _is_punctuation(word: str) -> bool:
    """Return what spaCy's `is_punct` says of a word."""
    return all(unicodedata.category(character)[0] == "P" for character in word)


@contextmanager
def _torch_left_out() -> Iterator[None]:
    """Let spaCy load without torch, which it takes along for models that are not used here: two seconds a process."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torch"]


class Splitter:
    """Splits texts of one language into words, and counts their sentences, as datatrove does."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._theirs: Any = load_word_tokenizer(language)
        self._last: list[Words] = []
        self.by_pieces = isinstance(self._theirs, SpaCyTokenizer) and self._theirs.language in SPLIT_BY_SPACES
        if self.by_pieces:
            with _torch_left_out():
                loaded = self._theirs.tokenizer
            ends = frozenset(loaded.get_pipe("sentencizer").punct_chars)
            self._vocabulary = Vocabulary(Pieces(loaded.tokenizer).split, ends)
        else:
            self._vocabulary = Vocabulary(lambda word: [word], frozenset())

    def words(self, text: str) -> Words:
        """Return the words of a text; asked again for one of the last two texts, the same object."""
        if (recent := self._recent(text)) is not None:
            return recent
        pieces = _pieces(text) if self.by_pieces else self._theirs.word_tokenize(text)
        words = Words(text, "".join(pieces), b"".join(map(self._vocabulary.__getitem__, pieces)))
        self._last = [words, *self._last[:1]]
        return words

    def _recent(self, text: str) -> Words | None:
        return next((words for words in self._last if words.text is text or words.text == text), None)

    def sentences(self, line: str) -> int:
        """Return how many sentences a line has."""
        if not self.by_pieces:
            return len(split_into_sentences(line, self.language))
        line = line.replace(_ATTRIBUTE, "")
        pieces = line.split()
        if " ".join(pieces) != line:  # white space beyond single spaces becomes a word of its own
            pieces = [piece for piece in _SPACES.split(line) if piece and piece != " "]
        known = b"".join(map(self._vocabulary.__getitem__, pieces))
        # A sentence begins at the first word after one that ends a sentence; other marks still belong to that.
        return 1 + known[_LOWEST::4].translate(_KINDS, _MARKS).count(b"EW")


def _pieces(text: str) -> list[str]:
    return text.replace(_ATTRIBUTE, "").split()


@cache
def datatrove_language(named: str) -> str:
    """Return a code by which datatrove knows a language, however it is named; what it does not know as it is.

    >>> datatrove_language("eng"), datatrove_language("English"), datatrove_language("ger"), datatrove_language("x")
    ('eng', 'en', 'de', 'x')
    """
    known = load_tokenizer_assignments()
    code = language_code(named)
    if named in known or code is None:
        return named
    return code if code in known else next((one for one in known if language_code(one) == code), named)


@cache
def splitter(language: str) -> Splitter:
    """Return this process's splitter of a language, named in any form.

    Raises:
        ValueError: datatrove has no splitter for it.
    """
    return Splitter(datatrove_language(language))


def words_of(text: str, language: str) -> Words:
    """Return the words of a text.

    Args:
        language: datatrove's code, such as "eng".
    """
    return splitter(language).words(text)

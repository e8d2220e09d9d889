"""A text's words as datatrove splits them, split once and shared by every rule.

datatrove's English splitter is spaCy's, which splits at white space first and then each piece by itself: so what a
piece becomes is learnt once and looked up from then on. Rules get numbers in arrays (`Words`), not strings, since
nearly all that they ask can be answered for all words at a time. Other languages are split by datatrove itself.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from datatrove.utils.text import PUNCTUATION_SET, split_into_sentences
from datatrove.utils.word_tokenizers import SpaCyTokenizer, load_word_tokenizer

from tasks.filters.pieces import Pieces

Hashes = npt.NDArray[np.uint64]

# Characters remembered (each piece counts a hundred more) before starting afresh: some 200 MiB, and far more than
# the vocabulary of a shard.
REMEMBERED = 100_000_000
SPLIT_BY_SPACES = frozenset({"en"})
# spaCy may fail on the name of its own attribute, depending on what it read before; datatrove takes it out then.
_ATTRIBUTE = "IS_ALPHA"
_PLAIN = (False, False)  # a word of letters neither ends a sentence nor is punctuation
# Any odd number serves as the base of the polynomial hash modulo 2**64.
_BASE = 0x9E3779B97F4A7C15
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class Words:
    """The words of one text, as numbers.

    Attributes:
        text: the text.
        numbers: each word's number in the vocabulary, in order.
        lengths: each word's characters.
    """

    def __init__(self, text: str, vocabulary: Vocabulary, numbers: Sequence[int]) -> None:
        self.text = text
        self._vocabulary = vocabulary
        self.numbers = np.array(numbers, dtype=np.intp)
        self.lengths = vocabulary.lengths[self.numbers]

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def symbols(self) -> npt.NDArray[np.bool_]:
        """Return, for each word, whether it is punctuation only (datatrove's set of marks)."""
        return self._vocabulary.symbols[self.numbers]

    @property
    def letters(self) -> npt.NDArray[np.bool_]:
        """Return, for each word, whether a letter is in it."""
        return self._vocabulary.letters[self.numbers]

    @cached_property
    def ends(self) -> npt.NDArray[np.int64]:
        """Return the characters of all words up to and with each."""
        return np.cumsum(self.lengths)

    def count_of(self, words: Iterable[str]) -> int:
        """Return how many of `words`, which differ, stand in the text."""
        known = (self._vocabulary.numbers.get(word) for word in words)
        return sum(bool((self.numbers == number).any()) for number in known if number is not None)

    def longest(self, n: int) -> int:
        """Return the characters of the longest n words in a row, without what stands between them."""
        spans = self.ends[n - 1 :].copy()
        spans[1:] -= self.ends[:-n]
        return int(spans.max())

    def characters(self, start: int, n: int) -> int:
        """Return the characters of the n words from `start` on, without what stands between them."""
        before = int(self.ends[start - 1]) if start else 0
        return int(self.ends[start + n - 1]) - before

    @cached_property
    def _sequences(self) -> list[Hashes]:
        return [self._vocabulary.mixed[self.numbers]]

    @cached_property
    def _joined(self) -> list[Hashes]:
        return [self._vocabulary.hashes[self.numbers]]

    @cached_property
    def _powers(self) -> Hashes:
        return self._vocabulary.powers[self.numbers]

    def sequences(self, n: int) -> Hashes:
        """Return a hash of each n words in a row: equal where the words are equal."""
        made = self._sequences
        while len(made) < n:
            made.append(made[-1][:-1] * np.uint64(_BASE) + made[0][len(made) :])
        return made[n - 1]

    def joined(self, n: int) -> Hashes:
        """Return a hash of each n words in a row, written without a space: "ab c" and "a bc" are equal."""
        made = self._joined
        while len(made) < n:
            made.append(made[-1][:-1] * self._powers[len(made) :] + made[0][len(made) :])
        return made[n - 1]


class Vocabulary:
    """What is known of each piece and each word; the arrays are indexed by the word's number."""

    def __init__(self) -> None:
        self.pieces: dict[str, tuple[int, ...]] = {}
        self.numbers: dict[str, int] = {}
        self.marks: list[tuple[bool, bool]] = []
        self.size = 0
        self._room = 0
        self.lengths = np.zeros(0, np.int64)
        self.hashes = np.zeros(0, np.uint64)
        self.powers = np.zeros(0, np.uint64)
        self.mixed = np.zeros(0, np.uint64)
        self.symbols = np.zeros(0, np.bool_)
        self.letters = np.zeros(0, np.bool_)

    def number(self, words: Iterable[str], ends: frozenset[str]) -> None:
        """Give every word that has none a number.

        Args:
            ends: the words that end a sentence.
        """
        new = [word for word in dict.fromkeys(words) if word not in self.numbers]
        if not new:
            return
        first = len(self.numbers)
        self._make_room(first + len(new))
        here = slice(first, first + len(new))
        self.lengths[here] = lengths = np.array([len(word) for word in new], np.int64)
        self.hashes[here] = hashes = polynomial_hashes("".join(new), lengths)
        self.powers[here] = _powers_of_base(int(lengths.max()) + 1)[lengths]
        self.mixed[here] = _mixed(hashes ^ _mixed(lengths.astype(np.uint64)))
        plain = [word.isalpha() for word in new]
        pairs = list(zip(new, plain, strict=True))
        self.letters[here] = [whole or any(map(str.isalpha, word)) for word, whole in pairs]
        self.symbols[here] = [not whole and PUNCTUATION_SET.issuperset(word) for word, whole in pairs]
        self.marks += [_PLAIN if whole else (word in ends, _is_punctuation(word)) for word, whole in pairs]
        self.numbers.update(zip(new, range(first, first + len(new)), strict=True))
        self.size += int(lengths.sum()) + 100 * len(new)

    def learn(self, split: Mapping[str, Sequence[str]], ends: frozenset[str]) -> None:
        """Remember how pieces are split into words."""
        self.number(chain.from_iterable(split.values()), ends)
        number = self.numbers.__getitem__
        self.pieces.update((piece, tuple(map(number, words))) for piece, words in split.items())
        self.size += sum(map(len, split)) + 100 * len(split)

    def _make_room(self, needed: int) -> None:
        if needed <= self._room:
            return
        self._room = max(needed, 2 * self._room, 1 << 14)
        for name in ("lengths", "hashes", "powers", "mixed", "symbols", "letters"):
            old = getattr(self, name)
            larger = np.zeros(self._room, old.dtype)
            larger[: len(old)] = old
            setattr(self, name, larger)


def polynomial_hashes(text: str, lengths: npt.NDArray[np.int64]) -> Hashes:
    """Return a hash of each of the words that `text` is made of, one after the other, none of them empty.

    The hash of two words written as one is the first's times the base to the power of the second's length, plus the
    second's: so n-grams need no strings. Characters are mixed to 64 bits first; two different n-grams of a page get
    one hash about once in 10**12 pages.
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    ends = np.cumsum(lengths)
    exponents = np.repeat(ends, lengths) - 1 - np.arange(len(codes))
    terms = _mixed(codes + np.uint64(1)) * _powers_of_base(int(lengths.max()))[exponents]
    return np.add.reduceat(terms, ends - lengths)


def _mixed(values: Hashes) -> Hashes:
    """Return each number mixed to 64 bits (the finaliser of SplitMix64: Steele, Lea, Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * _MIX[0]
    values = (values ^ (values >> np.uint64(27))) * _MIX[1]
    return values ^ (values >> np.uint64(31))


def _powers_of_base(count: int) -> Hashes:
    return _few_powers(max(64, 1 << (count - 1).bit_length())) if count <= 1 << 16 else _make_powers(count)


def _make_powers(count: int) -> Hashes:
    powers = np.full(count, _BASE, np.uint64)
    powers[0] = 1
    return np.cumprod(powers)


_few_powers = cache(_make_powers)


def _is_punctuation(word: str) -> bool:
    """Return what spaCy's `is_punct` says of a word."""
    return all(unicodedata.category(character)[0] == "P" for character in word)


class Splitter:
    """Splits texts of one language into words, and counts their sentences, as datatrove does."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._theirs: Any = load_word_tokenizer(language)
        self._vocabulary = Vocabulary()
        self._last: list[Words] = []
        self.by_pieces = isinstance(self._theirs, SpaCyTokenizer) and self._theirs.language in SPLIT_BY_SPACES
        self._ends: frozenset[str] = frozenset()
        if self.by_pieces:
            self._ends = frozenset(self._theirs.tokenizer.get_pipe("sentencizer").punct_chars)
            self._pieces = Pieces(self._theirs.tokenizer.tokenizer)

    def words(self, text: str) -> Words:
        """Return the words of a text; asked again for one of the last two texts, the same object."""
        for words in self._last:
            if words.text is text or words.text == text:
                return words
        if self.by_pieces:
            pieces = text.split()
            known = self._learn(pieces).pieces
            numbers = list(chain.from_iterable(map(known.__getitem__, pieces)))
        else:
            split = self._theirs.word_tokenize(text)
            vocabulary = self._roomy()
            vocabulary.number(split, self._ends)
            numbers = [vocabulary.numbers[word] for word in split]
        words = Words(text, self._vocabulary, numbers)
        self._last = [words, *self._last[:1]]
        return words

    def sentences(self, line: str, enough: int) -> int:
        """Return how many sentences a line has; no more than `enough` are counted."""
        if not self.by_pieces:
            return len(split_into_sentences(line, self.language))
        # White space beyond single spaces becomes a word of its own.
        spaced = line.split(" ")
        pieces = line.split()
        if spaced != pieces:
            pieces = [piece for piece in re.split(r"(\s+)", line) if piece != " "]
        vocabulary = self._learn([piece for piece in pieces if piece and not piece.isspace()])
        count, ended = 1, False
        for piece in pieces:
            for number in vocabulary.pieces.get(piece, ()):
                ends, punctuation = vocabulary.marks[number]
                if ended and not punctuation and not ends:
                    count, ended = count + 1, False
                elif ends:
                    ended = True
            if ended and piece.isspace():
                count, ended = count + 1, False
            if count >= enough:
                break
        return count

    def _roomy(self) -> Vocabulary:
        if self._vocabulary.size > REMEMBERED:
            self._vocabulary = Vocabulary()
        return self._vocabulary

    def _learn(self, pieces: Sequence[str]) -> Vocabulary:
        """Return the vocabulary, with all of `pieces` in it."""
        vocabulary = self._roomy()
        new = list(set(pieces).difference(vocabulary.pieces))
        if not new:
            return vocabulary
        found = {piece: self._pieces.split(piece) for piece in new}
        split = {piece: words for piece, words in found.items() if words is not None and _ATTRIBUTE not in piece}
        if len(split) < len(new):
            split |= self._split_by_spacy([piece for piece in new if piece not in split])
        vocabulary.learn(split, self._ends)
        return vocabulary

    def _split_by_spacy(self, pieces: Sequence[str]) -> dict[str, list[str]]:
        """Return how spaCy splits each piece; new lines keep neighbours from being taken for one exception (": )")."""
        if not pieces:
            return {}
        pipeline = self._theirs.tokenizer
        # A piece of that name alone is no word, and an empty line would merge with the next.
        cleared = [piece.replace(_ATTRIBUTE, "") or "\0" for piece in pieces]
        # Inside the zone spaCy forgets, at its end, the words it met: its vocabulary would grow without end.
        with pipeline.memory_zone():
            tokens = [token.text for token in pipeline.tokenizer("\n".join(cleared))]
        split: list[list[str]] = [[]]
        for token in tokens:
            if token.startswith("\n"):
                split.append([])
            else:
                split[-1].append(token)
        return {piece: [] if piece == _ATTRIBUTE else words for piece, words in zip(pieces, split, strict=True)}


@cache
def splitter(language: str) -> Splitter:
    """Return this process's splitter of a language.

    Raises:
        ValueError: datatrove has no splitter for it.
    """
    return Splitter(language)


def words_of(text: str, language: str) -> Words:
    """Return the words of a text.

    Args:
        language: datatrove's code, such as "eng".
    """
    return splitter(language).words(text)

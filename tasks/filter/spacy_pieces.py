"""How spaCy's English tokenizer splits what stands between spaces, without building a spaCy document for it.

spaCy computes a dozen attributes of each word it meets for the first time, which costs ten times what finding the
words does. Here its own tables and expressions (exceptions, prefixes, suffixes, infixes, URLs) are read from the
tokenizer that datatrove loads, and applied in the order that its documentation gives ("How spaCy's tokenizer works").
Expressions that cannot match are not asked: `tests/tasks/filter` compares with spaCy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from string import ascii_lowercase, digits
from typing import Any

# A word of its own at either end of a piece, and in no longer prefix or suffix.
_APART = "!\"#&'()*,:;<>?[]_`{}¡«»¿،؛؟٪۔।‘’‚“”„、。〈〉《》「」『』【】〔〕！（），：；？～"
_APART_OR_STOP = _APART + "."
_MARKS = frozenset(_APART)
# A full stop after one of these is a word of its own.
_BEFORE_STOP = _MARKS.union(ascii_lowercase, digits)
# No suffix of letters is longer than a unit of measure ("mbar", "اكواب"), and none of other characters, but a run of
# full stops, than "US$".
_LETTERS_TAIL, _TAIL = 24, 3
_SUFFIX_APOSTROPHES = ("'s", "'S", "’s", "’S")
_DIGIT = re.compile(r"[0-9]")


class Pieces:
    """Splits one piece at a time.

    Args:
        tokenizer: spaCy's `Tokenizer` of a blank English pipeline.
    """

    def __init__(self, tokenizer: Any) -> None:
        # spaCy takes three seconds to import; params.yaml is checked without it.
        from spacy.lang.char_classes import CONCAT_ICONS
        from spacy.symbols import ORTH

        assert tokenizer.token_match is None, "the English tokenizer keeps no piece whole by an expression"
        self._exceptions: Mapping[str, Sequence[str]] = {
            text: [part[ORTH] for part in parts] for text, parts in tokenizer.rules.items()
        }
        # Every prefix is anchored, so `match` finds what `search` does, at once.
        self._prefixes: re.Pattern[str] = tokenizer.prefix_search.__self__
        self._suffixes: re.Pattern[str] = tokenizer.suffix_search.__self__
        self._infixes: re.Pattern[str] = tokenizer.infix_finditer.__self__
        self._is_url = tokenizer.url_match
        # Symbols such as arrows and emoji; for speed, all characters beyond the first plane stand for those among them.
        icons = CONCAT_ICONS.partition(r"\U")[0] + r"\U00010000-\U0010FFFF"
        # Every infix is one of these characters and has these beside it; [^…] stands for a letter.
        self._may_divide = re.compile(
            rf"[-.,:<>=/+*^~–—…{icons}](?:(?<=[…{icons}])|(?<=\.)[^0-9a-z]|(?<=[-+*^])[0-9-]"
            r"|(?<=[-–—~,:<>=/])[^\x00-@\[-`{-\x7f])"
        )
        # What is left of an exception without the marks beside it: other pieces need not be compared with exceptions.
        self._odd = {text.lstrip(_APART).rstrip(_APART_OR_STOP) for text in self._exceptions}
        # Exceptions that are found among the words of a longer piece too, such as ":)".
        self._hidden = {
            tuple(self._apart(text, {})): words for text, words in self._exceptions.items() if self._is_divided(text)
        }
        self._hidden = {found: words for found, words in self._hidden.items() if len(found) > 1}
        self._hidden_pairs = {found[:2] for found in self._hidden}
        self._longest_hidden = max(map(len, self._hidden))

    def split(self, piece: str) -> Sequence[str]:
        """Return the words of a piece."""
        if piece.isalpha():
            return self._exceptions.get(piece, (piece,))
        bare = piece.lstrip(_APART).rstrip(_APART_OR_STOP)
        if not bare or bare in self._odd:
            return self._merged(self._apart(piece, self._exceptions))
        before, _, after = piece.partition(bare)
        plain = bare.isalpha() or not (self._prefix(bare) or self._suffix(bare))
        if not plain or ("." in after and not _is_apart(bare, after)):
            return self._merged(self._apart(piece, self._exceptions))
        return self._merged([*before, *self._body(bare), *after])

    def _is_divided(self, text: str) -> bool:
        return bool(self._prefix(text) or self._suffix(text) or self._infixes.search(text) or " " in text)

    def _apart(self, piece: str, exceptions: Mapping[str, Sequence[str]]) -> list[str]:
        before: list[str] = []
        after: list[str] = []
        body, length = piece, 0
        while body and len(body) != length and body not in exceptions:
            length = len(body)
            prefix = self._prefix(body)
            if prefix and body[prefix:] in exceptions:
                before.append(body[:prefix])
                body = body[prefix:]
                break
            suffix = self._suffix(body[prefix:])
            if suffix and body[:-suffix] in exceptions:
                after.append(body[-suffix:])
                body = body[:-suffix]
                break
            if prefix:
                before.append(body[:prefix])
            if suffix and (not prefix or prefix + suffix <= length):
                after.append(body[-suffix:])
                body = body[prefix:-suffix]
            else:
                body = body[prefix:]
        middle = exceptions[body] if body in exceptions else self._body(body)
        return [*before, *middle, *reversed(after)]

    def _body(self, body: str) -> Sequence[str]:
        perhaps = None if body.isalpha() else self._may_divide.search(body)
        if not perhaps:
            return (body,) if body else ()
        words: list[str] = []
        start = 0
        while perhaps:
            match = self._infixes.match(body, perhaps.start())
            if match and match.start():
                words += [body[start : match.start()], match[0]]
                start = match.end()
            perhaps = self._may_divide.search(body, match.end() if match else perhaps.start() + 1)
        if not words or ("." in body and self._is_url(body)):
            return (body,)
        words.append(body[start:])
        return [word for word in words if word]

    def _prefix(self, body: str) -> int:
        first = body[:1]
        if first in _MARKS:
            return 1
        if (first.isalpha() or first in digits) and "$" not in body:
            return 0
        match = self._prefixes.match(body)
        return match.end() if match else 0

    def _suffix(self, body: str) -> int:
        last = body[-1:]
        if last in _MARKS:
            return 1
        if last in digits:
            return 0
        if last.isalpha() and not body.endswith(_SUFFIX_APOSTROPHES) and not _DIGIT.search(body):
            return 0
        tail = len(body) if body.endswith("..") else _LETTERS_TAIL if last.isalnum() else _TAIL
        match = self._suffixes.search(body, max(0, len(body) - tail))
        return match.end() - match.start() if match else 0

    def _merged(self, words: Sequence[str]) -> Sequence[str]:
        """Return the words with exceptions put together that stand among them.

        As in spaCy, the longest is taken first, then the first; also one that is not taken keeps shorter ones away.
        """
        pairs = list(pairwise(words))
        if self._hidden_pairs.isdisjoint(pairs):
            return words
        found = [
            (start, end)
            for start, pair in enumerate(pairs)
            if pair in self._hidden_pairs
            for end in range(start + 2, min(len(words), start + self._longest_hidden) + 1)
            if tuple(words[start:end]) in self._hidden
        ]
        taken: set[int] = set()
        ends: dict[int, int] = {}
        for start, end in sorted(found, key=lambda span: (span[0] - span[1], span[0])):
            if start not in taken and end - 1 not in taken:
                ends[start] = end
            taken.update(range(start, end))
        merged: list[str] = []
        place = 0
        while place < len(words):
            end = ends.get(place, place + 1)
            span = words[place:end]
            merged += self._hidden[tuple(span)] if place in ends else span
            place = end
        return merged


def _is_apart(bare: str, after: str) -> bool:
    """Return whether the full stop among the marks after a piece is a word of its own, as each mark is."""
    before, _, behind = after.partition(".")
    return (before or bare)[-1] in _BEFORE_STOP and "." not in behind

"""How spaCy's English tokenizer splits what stands between spaces, without building a spaCy document for it.

spaCy computes a dozen attributes of each word it meets for the first time, which costs ten times what finding the
words does. Here its own tables and expressions (exceptions, prefixes, suffixes, infixes, URLs) are read from the
tokenizer that datatrove loads, and applied in the order that its documentation gives ("How spaCy's tokenizer works").
Expressions that cannot match are not asked: `tests/tasks/filters` compares with spaCy. The few pieces in which an
exception might stand in the middle ("see:)") are left to spaCy itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from string import ascii_lowercase
from typing import Any

# A word of its own at either end of a piece, and in no longer prefix or suffix.
_ALWAYS_APART = frozenset(",:;!?()[]{}<>_#*&\"'`")
_MARKS = frozenset(".,:;!?)")
# No suffix but a run of full stops is longer than a unit of measure ("mbar", "اكواب"), and no lookbehind than two.
_TAIL = 24
_SUFFIX_APOSTROPHES = ("'s", "'S", "’s", "’S")
_DIGIT = re.compile(r"[0-9]")
_MAY_DIVIDE = re.compile(r"[.+\-*^,:<>=/~]")


class Pieces:
    """Splits one piece at a time.

    Args:
        tokenizer: spaCy's `Tokenizer` of a blank English pipeline.
    """

    def __init__(self, tokenizer: Any) -> None:
        # spaCy takes three seconds to import; params.yaml is checked without it.
        from spacy.symbols import ORTH

        assert tokenizer.token_match is None, "the English tokenizer keeps no piece whole by an expression"
        self._exceptions: Mapping[str, tuple[str, ...]] = {
            text: tuple(part[ORTH] for part in parts) for text, parts in tokenizer.rules.items()
        }
        # Every prefix is anchored, so `match` finds what `search` does, at once.
        self._prefixes: re.Pattern[str] = tokenizer.prefix_search.__self__
        self._suffixes: re.Pattern[str] = tokenizer.suffix_search.__self__
        self._infixes: re.Pattern[str] = tokenizer.infix_finditer.__self__
        self._is_url = tokenizer.url_match
        none: Mapping[str, tuple[str, ...]] = {}
        affected = [text for text in self._exceptions if self._is_divided(text)]
        self._hidden = {tuple(self._apart(text, none)) for text in affected}
        self._hidden_first = {words[0] for words in self._hidden if words}
        self._longest_hidden = max(map(len, self._hidden))
        self._odd = self._hidden_first.union(self._exceptions)

    def split(self, piece: str) -> list[str] | None:
        """Return the words of a piece, or None where only spaCy itself knows."""
        # Nine of ten pieces are a word, or a word and one mark. A full stop stays with a capital letter ("A.").
        if piece.isalpha() and piece not in self._odd:
            return [piece]
        word, mark = piece[:-1], piece[-1]
        common = mark in _MARKS and word.isalpha() and word not in self._odd and piece not in self._odd
        if common and (mark != "." or word[-1] in ascii_lowercase):
            return [word, mark]
        words = self._apart(piece, self._exceptions)
        return None if self._hides_exception(words) else words

    def _is_divided(self, text: str) -> bool:
        return bool(self._prefix(text) or self._suffix(text) or self._infixes.search(text) or " " in text)

    def _apart(self, piece: str, exceptions: Mapping[str, tuple[str, ...]]) -> list[str]:
        if piece.isalpha():
            return list(exceptions.get(piece, (piece,)))
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
        return [*before, *self._body(body, exceptions), *reversed(after)]

    def _body(self, body: str, exceptions: Mapping[str, tuple[str, ...]]) -> Sequence[str]:
        if not body or body in exceptions:
            return exceptions.get(body, ())
        if body.isalpha() or ("." in body and self._is_url(body)):
            return (body,)
        if body.isascii() and not _MAY_DIVIDE.search(body):
            return (body,)
        words: list[str] = []
        start = 0
        for match in self._infixes.finditer(body):
            if match.start() == 0:
                continue
            words += [body[start : match.start()], match[0]]
            start = match.end()
        words.append(body[start:])
        return [word for word in words if word]

    def _prefix(self, body: str) -> int:
        first = body[:1]
        if first.isascii() and first.isalnum() and "$" not in body:
            return 0
        if first in _ALWAYS_APART:
            return 1
        match = self._prefixes.match(body)
        return match.end() if match else 0

    def _suffix(self, body: str) -> int:
        last = body[-1:]
        if last and last in _ALWAYS_APART:
            return 1
        if last.isascii() and last.isalnum():
            if last.isdigit():
                return 0
            if not body.endswith(_SUFFIX_APOSTROPHES) and not _DIGIT.search(body):
                return 0
        match = self._suffixes.search(body, 0 if body.endswith("..") else max(0, len(body) - _TAIL))
        return match.end() - match.start() if match else 0

    def _hides_exception(self, words: Sequence[str]) -> bool:
        for start, first in enumerate(words):
            if first in self._hidden_first:
                ends = range(start + 1, min(len(words), start + self._longest_hidden) + 1)
                if any(tuple(words[start:end]) in self._hidden for end in ends):
                    return True
        return False

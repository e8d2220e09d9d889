"""datatrove's filter blocks, called with our documents: their answer becomes a Drop or an Edit.

The blocks spend nearly all their time on splitting words, each again; `shared_words` gives them one splitter that
remembers how each space-delimited piece is split, with identical results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from datatrove.data import Document as Datum
from datatrove.pipeline.filters.base_filter import BaseFilter, get_filter_result
from datatrove.utils.word_tokenizers import SpaCyTokenizer, WordTokenizer, load_word_tokenizer

from tasks.contracts.base import Drop, Edit
from tasks.contracts.document import Document

# Pieces remembered before starting afresh: some 60 MiB, and far more than a shard's vocabulary.
REMEMBERED = 300_000
SPLIT_BY_SPACES = ("en",)


def is_block(thing: object) -> bool:
    """Return whether this is a datatrove filter."""
    return isinstance(thing, BaseFilter)


def judge(
    name: str, block: Any, document: Document, thresholds: Mapping[str, float] | None = None
) -> Drop | Edit | None:
    """Return a block's answer about a document.

    Args:
        name: the rule's name; the ledger's rule is this name and the block's reason, as "fineweb.list_ratio".
        thresholds: reason → the threshold that it crossed.
    """
    metadata = {"url": document.url, "language": document.language, "language_score": document.language_score}
    datum = Datum(text=document.text, id=document.doc_id, metadata=metadata)
    keep, reason = get_filter_result(block.filter(datum))
    if not keep:
        reason = str(reason or "dropped").removeprefix("gopher_")
        return Drop(rule=f"{name}.{reason}", threshold=(thresholds or {}).get(reason))
    if datum.text != document.text:
        lines = document.text.count("\n") + 1
        left = datum.text.count("\n") + 1 if datum.text else 0
        return Edit(
            rule=name,
            text=datum.text,
            score=float(lines - left),
            detail=f"{lines - left} of {lines} lines removed",
        )
    return None


@cache
def shared_words(language: str) -> Any:
    """Return what to pass to a block as its `language`: the shared splitter where there is one."""
    theirs = load_word_tokenizer(language)
    if isinstance(theirs, SpaCyTokenizer) and theirs.language in SPLIT_BY_SPACES:
        return SharedWords(theirs)
    return language


class SharedWords(WordTokenizer):
    """datatrove's spaCy splitter for a language that splits at spaces first: the same words, each piece split once."""

    def __init__(self, theirs: Any) -> None:
        super().__init__(theirs.language)
        self._theirs = theirs
        self._pieces: dict[str, list[str]] = {}
        # Of each word of a piece: its length, whether it ends a sentence, whether it is punctuation.
        self._marks: dict[str, list[tuple[int, bool, bool]]] = {}
        self._ends = frozenset(theirs.tokenizer.get_pipe("sentencizer").punct_chars)

    def word_tokenize(self, text: str) -> list[str]:
        """Return the words of a text, as spaCy splits them."""
        pieces = text.split()
        self._learn(pieces)
        return [word for piece in pieces for word in self._pieces[piece]]

    def _learn(self, pieces: Sequence[str]) -> None:
        new = {piece for piece in pieces if piece not in self._pieces}
        if not new:
            return
        if len(self._pieces) + len(new) > REMEMBERED:
            self._pieces.clear()
            self._marks.clear()
            new = set(pieces)
        pipeline = self._theirs.tokenizer
        # Inside the zone spaCy forgets, at its end, the words it met: its vocabulary would grow without end.
        with pipeline.memory_zone():
            for piece in new:
                tokens = pipeline.tokenizer(piece)
                self._pieces[piece] = [token.text for token in tokens]
                self._marks[piece] = [(len(t.text), t.text in self._ends, t.is_punct) for t in tokens]

    def sent_tokenize(self, text: str) -> list[str]:
        """Return the sentences of a text."""
        return list(self._theirs.sent_tokenize(text))

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Return where each sentence begins and ends, in characters."""
        pieces = text.split(" ")
        if pieces != text.split():
            # White space beyond single spaces becomes words of its own.
            return list(self._theirs.span_tokenize(text))
        # spaCy's rule ends a sentence only after a token that is one of these characters.
        if self._ends.isdisjoint(text[:-1]):
            return [(0, len(text))]
        self._learn(pieces)
        spans: list[tuple[int, int]] = []
        begin = end = at = 0
        ended = False
        for piece in pieces:
            place = at
            for length, ends, punctuation in self._marks[piece]:
                if ended and not punctuation and not ends:
                    spans.append((begin, end))
                    begin, ended = place, False
                elif ends:
                    ended = True
                place += length
                end = place
            at += len(piece) + 1
        return [*spans, (begin, end)]

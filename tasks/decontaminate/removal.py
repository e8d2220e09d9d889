"""Decide which found n-grams are leaks, and take them out of a document's text.

An n-gram that stands in many documents of the corpus (a licence clause, a famous quotation) is a common phrase.
Found alone it is no leak; it counts in a document that holds most of the item, for a leak mirrored on many pages
is common as well. This is decided document by document, so a benchmark is never unprotected as a whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tasks.contracts.base import FrozenModel
from tasks.contracts.document import Document
from tasks.decontaminate.index import Hit, Index, Words, merge_ranges, split_words

_BLANK_LINES = re.compile(r"\n{3,}")
LONGEST_QUOTE = 200


class RemovalSettings(FrozenModel):
    """What is taken out, and when the document goes as a whole."""

    remove: str
    common_coverage: float
    max_removed: float
    min_words_left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """One protected text found in a document.

    Attributes:
        grams: how many different n-grams of it were found.
        coverage: their share of the text's n-grams.
        quote: what the document says there, shortened to 200 characters.
    """

    task: str
    item: str
    field: str
    grams: int
    coverage: float
    quote: str

    def describe(self) -> str:
        """Return one line for the ledger: which item, and the words that matched."""
        return f"{self.task}, {self.item}, {self.field}: {self.quote}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is left of a document, and why. `text` is None when the document must go as a whole."""

    leaks: tuple[Leak, ...]
    removed: float
    text: str | None


def inspect(document: Document, index: Index, common: frozenset[int], settings: RemovalSettings) -> Finding | None:
    """Search a document for protected texts; None when it holds none.

    Args:
        common: hashes of the n-grams that stand in many documents.
    """
    words = split_words(document.text)
    hits = index.search(words.hashes)
    if not hits:
        return None
    found: dict[int, list[Hit]] = {}
    for hit in hits:
        for number in hit.texts:
            found.setdefault(number, []).append(hit)
    leaks: list[Leak] = []
    ranges: list[tuple[int, int]] = []
    for number, of_text in sorted(found.items()):
        protected = index.texts[number]
        grams = {hit.gram for hit in of_text}
        coverage = len(grams) / protected.grams
        if grams <= common and coverage < settings.common_coverage:
            continue
        spans = [_span(hit, words) for hit in of_text]
        ranges += spans
        first, last = merge_ranges(spans)[0]
        leaks.append(
            Leak(
                task=protected.task,
                item=protected.item,
                field=protected.field,
                grams=len(grams),
                coverage=coverage,
                quote=" ".join(document.text[first:last].split())[:LONGEST_QUOTE],
            )
        )
    if not leaks:
        return None
    ordered = tuple(sorted(leaks, key=lambda leak: (-leak.grams, leak.task, leak.item, leak.field)))
    return _remove(document.text, words, merge_ranges(ranges), ordered, settings)


def _span(hit: Hit, words: Words) -> tuple[int, int]:
    return int(words.starts[hit.first]), int(words.ends[hit.first + hit.length - 1])


def _remove(
    text: str, words: Words, ranges: list[tuple[int, int]], leaks: tuple[Leak, ...], settings: RemovalSettings
) -> Finding:
    matched = sum(int(((words.starts >= a) & (words.ends <= b)).sum()) for a, b in ranges)
    if settings.remove == "paragraph":
        ranges = _whole_lines(text, ranges)
    gone = sum(int(((words.starts >= a) & (words.ends <= b)).sum()) for a, b in ranges)
    left = len(words.hashes) - gone
    removed = matched / max(len(words.hashes), 1)
    if settings.remove == "document" or removed > settings.max_removed or left < settings.min_words_left:
        return Finding(leaks=leaks, removed=removed, text=None)
    kept, position = [], 0
    for start, end in ranges:
        kept.append(text[position:start])
        position = end
    kept.append(text[position:])
    separator = "" if settings.remove == "paragraph" else " "
    return Finding(leaks=leaks, removed=removed, text=_BLANK_LINES.sub("\n\n", separator.join(kept)).strip())


def _whole_lines(text: str, ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Widen each range to the lines that it touches, line ends included (extraction puts a paragraph on a line)."""
    widened = []
    for start, end in ranges:
        first = text.rfind("\n", 0, start) + 1
        newline = text.find("\n", end)
        widened.append((first, len(text) if newline < 0 else newline + 1))
    return merge_ranges(widened)

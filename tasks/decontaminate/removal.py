"""Decide which found n-grams are leaks, and take them out of a document's text.

An n-gram that stands in many documents of the corpus (a licence clause, a famous quotation) is a common phrase.
Found alone it is no leak; it counts in a document that holds most of the item, for a leak mirrored on many pages
is common as well. This is decided document by document, so a benchmark is never unprotected as a whole.

A found n-gram is compared with the protected text word by word before it counts. Items of one task that share a
template ("Sort these words:") are all found by it: those of which a better found item explains everything are not
named.

A short item that is found whole is as common as its words: in more documents than `common_in_documents`, or where it
may be something else (`forms.is_doubtful`), it is no leak by itself, but it is one in a document that surely holds
`COPIED_ITEMS` of one benchmark, as a copy of the benchmark does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tasks.contracts.base import FrozenModel
from tasks.contracts.document import Document
from tasks.decontaminate.hashed_words import Located, locate
from tasks.decontaminate.ngram_index import Hit, Index, Protected, merge_ranges

_BLANK_LINES = re.compile(r"\n{3,}")
LONGEST_QUOTE = 200
COPIED_ITEMS = 5


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
    split: str
    item: str
    field: str
    grams: int
    coverage: float
    quote: str

    def describe(self) -> str:
        """Return one line for the ledger: benchmark, split, item, field, and the words that matched."""
        where = f"{self.task} ({self.split})" if self.split else self.task
        return f"{where}, {self.item}, {self.field}: {self.quote}"


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
    words = locate(document.text)
    found: dict[int, list[Hit]] = {}
    for hit in index.search(words.units):
        for number in hit.texts:
            found.setdefault(number, []).append(hit)
    for hit in index.search_whole(document.text, words):
        for number in hit.texts:
            found.setdefault(number, []).append(hit)
    texts = {number: index.protected(number) for number in sorted(found)}
    items: dict[str, set[str]] = {}
    for number, protected in texts.items():
        if protected.form and not all(hit.doubtful for hit in found[number]):
            items.setdefault(protected.task, set()).add(protected.item)
    leaks: list[tuple[Leak, frozenset[int], bool]] = []
    ranges: list[tuple[int, int]] = []
    for number, protected in texts.items():
        of_text = [hit for hit in found[number] if protected.form or _is_in(hit, words, protected)]
        grams = frozenset(hit.gram for hit in of_text)
        coverage = len(grams) / protected.grams
        known = (
            len(items.get(protected.task, ())) >= COPIED_ITEMS
            if protected.form
            else coverage >= settings.common_coverage
        )
        if not grams or (not known and (grams <= common or all(hit.doubtful for hit in of_text))):
            continue
        spans = [_span(hit, words) for hit in of_text]
        ranges += spans
        first, last = max(merge_ranges(spans), key=lambda span: span[1] - span[0])
        leak = Leak(
            task=protected.task,
            split=protected.split,
            item=protected.item,
            field=protected.field,
            grams=len(grams),
            coverage=coverage,
            quote=" ".join(document.text[first:last].split())[:LONGEST_QUOTE],
        )
        leaks.append((leak, grams, bool(protected.form)))
    if not leaks:
        return None
    return _remove(document.text, words, merge_ranges(ranges), _best(leaks), settings)


def _best(leaks: list[tuple[Leak, frozenset[int], bool]]) -> tuple[Leak, ...]:
    """Return the leaks, the longest first, without those whose n-grams better ones of the same task explain.

    What is found whole (the last of each three) says nothing new of an item that is named already.
    """
    explained: dict[str, set[int]] = {}
    kept: list[Leak] = []
    named: set[tuple[str, str]] = set()
    for leak, grams, whole in sorted(
        leaks, key=lambda one: (one[2], -one[0].grams, -one[0].coverage, one[0].task, one[0].item, one[0].field)
    ):
        known = explained.setdefault(leak.task, set())
        if grams <= known or (whole and (leak.task, leak.item) in named):
            continue
        kept.append(leak)
        known |= grams
        named.add((leak.task, leak.item))
    return tuple(kept)


def _is_in(hit: Hit, words: Located, protected: Protected) -> bool:
    return f" {' '.join(words.words[hit.first : hit.end])} " in protected.words


def _span(hit: Hit, words: Located) -> tuple[int, int]:
    return int(words.starts[hit.first]), int(words.ends[hit.end - 1])


def _remove(
    text: str, words: Located, ranges: list[tuple[int, int]], leaks: tuple[Leak, ...], settings: RemovalSettings
) -> Finding:
    matched = sum(int(((words.starts >= a) & (words.ends <= b)).sum()) for a, b in ranges)
    if settings.remove == "paragraph":
        ranges = _whole_lines(text, ranges)
    gone = sum(int(((words.starts >= a) & (words.ends <= b)).sum()) for a, b in ranges)
    left = len(words.words) - gone
    removed = matched / max(len(words.words), 1)
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

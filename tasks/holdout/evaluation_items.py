"""Evaluation items from held-out documents: text to measure bits per byte on, and continuations to choose from.

Everything is decided by seeded hashes of the documents' own content, so the same held-out documents give the
same items, whatever the order or the machine.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tasks.contracts.base import FrozenModel
from tasks.contracts.document import Document
from tasks.contracts.draws import draw
from tasks.contracts.words import CHUNK

_SENTENCE_END = frozenset(".!?;:。！？；：…।\"'”’)]}>")
_HAS_LETTER = re.compile(r"[^\W\d_]")


class ContinuationSettings(FrozenModel):
    """How the multiple-choice continuation task is made."""

    max_items: int
    items_per_document: int
    context_words: int
    min_context_words: int
    continuation_words: int
    choices: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TextItem:
    """One text to measure bits per byte on."""

    item_id: str
    doc_id: str
    url: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinuationItem:
    """One multiple-choice question: which of `choices` goes on where `context` stops.

    Attributes:
        choices: each begins with what stands between it and the context: a space, or nothing in a script without.
        gold: index of the true continuation.
        choice_doc_ids: the document that each choice was taken from.
    """

    item_id: str
    doc_id: str
    url: str
    context: str
    choices: tuple[str, ...]
    gold: int
    choice_doc_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Cut:
    """A place in mid-sentence: the text before it, and the words after it."""

    document: Document
    position: int
    context: str
    continuation: str


def text_items(documents: Sequence[Document], *, max_items: int, max_characters: int, seed: int) -> list[TextItem]:
    """Return up to `max_items` texts, each cut after the last whole word within `max_characters`."""
    chosen = sorted(documents, key=lambda d: draw(d.text, seed=seed, purpose="text"))[:max_items]
    return [
        TextItem(item_id=f"{d.doc_id}-text", doc_id=d.doc_id, url=d.url, text=cut_text(d.text, max_characters))
        for d in chosen
        if d.text.strip()
    ]


def cut_text(text: str, max_characters: int) -> str:
    """Return the beginning of `text`, whole words only.

    >>> cut_text("one two three", 9)
    'one two'
    """
    if len(text) <= max_characters:
        return text
    head = text[: max_characters + 1]
    cut = max((match.start() for match in re.finditer(r"\s", head)), default=0)
    return head[:cut].rstrip() or text[:max_characters]


def continuation_items(
    documents: Sequence[Document], *, settings: ContinuationSettings, seed: int
) -> list[ContinuationItem]:
    """Return up to `max_items` questions, each with the true continuation and others from other documents.

    The false continuations are cut in mid-sentence too, have as many words, begin in the same manner (after a
    space or not) and are chosen by a random generator that is seeded with the question's own content.
    """
    cuts = {
        document.doc_id: _document_cuts(document, settings, seed)
        for document in sorted(documents, key=lambda d: (draw(d.text, seed=seed, purpose="continuation"), d.doc_id))
    }
    pool = [cut for of_document in cuts.values() for cut in of_document]
    items: list[ContinuationItem] = []
    for turn in range(settings.items_per_document):
        for of_document in cuts.values():
            if turn < len(of_document) and len(items) < settings.max_items:
                item = _question(of_document[turn], pool, settings.choices, seed)
                items += [item] if item else []
    return items


def _question(cut: _Cut, pool: Sequence[_Cut], choices: int, seed: int) -> ContinuationItem | None:
    generator = random.Random(draw(f"{cut.context}\n{cut.continuation}", seed=seed, purpose="choices"))
    texts = [cut.continuation]
    sources = [cut.document.doc_id]
    own_text = " ".join(cut.document.text.split())
    for index in generator.sample(range(len(pool)), len(pool)):
        other = pool[index]
        text = other.continuation
        alike = text.startswith(" ") == cut.continuation.startswith(" ")
        if alike and other.document.doc_id not in sources and text not in texts and text.strip() not in own_text:
            texts.append(text)
            sources.append(other.document.doc_id)
        if len(texts) == choices:
            break
    else:
        return None
    order = generator.sample(range(choices), choices)
    return ContinuationItem(
        item_id=f"{cut.document.doc_id}-{cut.position}",
        doc_id=cut.document.doc_id,
        url=cut.document.url,
        context=cut.context,
        choices=tuple(texts[i] for i in order),
        gold=order.index(0),
        choice_doc_ids=tuple(sources[i] for i in order),
    )


def _document_cuts(document: Document, settings: ContinuationSettings, seed: int) -> list[_Cut]:
    """Return places in mid-sentence that are far enough apart, chosen by a seeded hash."""
    text = document.text
    spans = [match.span() for match in CHUNK.finditer(text)]
    gaps = [text[a_end:b_start] for (_, a_end), (b_start, _) in pairwise(spans)]
    length = settings.continuation_words
    possible = [
        i
        for i in range(settings.min_context_words, len(spans) - length + 1)
        if _in_one_line(gaps[i - 1 : i + length - 1])
        and text[spans[i - 1][1] - 1] not in _SENTENCE_END
        and len(_HAS_LETTER.findall(text, spans[i][0], spans[i + length - 1][1])) >= length
    ]
    chosen: list[_Cut] = []
    of_text = draw(text, seed=seed, purpose="cuts")
    for i in sorted(possible, key=lambda i: draw(str(i), seed=of_text, purpose="cut")):
        if len(chosen) == settings.items_per_document:
            break
        if all(abs(i - cut.position) >= settings.context_words for cut in chosen):
            start = spans[max(0, i - settings.context_words)][0]
            context = text[start : spans[i - 1][1]]
            chosen.append(_Cut(document, i, context, text[spans[i - 1][1] : spans[i + length - 1][1]]))
    return chosen


def _in_one_line(gaps: Sequence[str]) -> bool:
    return all(gap in (" ", "") for gap in gaps)

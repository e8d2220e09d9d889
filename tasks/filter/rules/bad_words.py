"""Adult and toxic pages, by the words on them: a short list of our own and any list that a person names."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from tasks.contracts.base import Drop, Measured, Rule, threshold
from tasks.contracts.document import Document
from tasks.contracts.scripts import NO_SPACE_SCRIPTS
from tasks.filter.list_files import read_list

_WORD = re.compile(r"\w+")
_NO_SPACES = re.compile(f"[{NO_SPACE_SCRIPTS}]")


class BadWords(Rule):
    """Which words count, and how many a document may have.

    C4 (Raffel et al. 2020, arXiv:1910.10683) drops a page with one word of its list, which also drops medicine, law
    and dictionaries (Dodge et al. 2021, arXiv:2104.08758); so here a number and a share must both be reached. No list
    of others is shipped: `lists` takes files with a word or phrase a line, such as LDNOOBW's.

    >>> BadWords()(document("A court ruled on a porn site. It broke the law on the age of users."))
    >>> BadWords(min_count=2)(document("Free porn! XXX videos, porn, NSFW.")).detail
    'porn 2, nsfw 1, xxx 1'
    """

    paths: ClassVar[tuple[str, ...]] = ("lists",)

    words: tuple[str, ...] = (
        *("porn", "porno", "pornstar", "xxx", "nsfw", "hentai", "milf", "camgirl", "camgirls", "sexcam", "blowjob"),
        *("cumshot", "gangbang", "creampie", "upskirt", "live sex", "sex chat", "sex videos", "escort girls"),
    )
    """Words and phrases, whatever their case."""
    lists: tuple[str, ...] = ()
    """Files with more, one a line; lines that begin with # do not count; .gz is read too."""
    min_count: int = threshold(3, ge=1)
    """Number of such words from which a document may be dropped."""
    min_share: float = threshold(0.01, ge=0, le=1)
    """Share of all words from which it is dropped."""

    @cached_property
    def _entries(self) -> tuple[frozenset[str], dict[str, list[tuple[str, ...]]], tuple[str, ...]]:
        """Return single words, phrases by their first word, and entries of scripts without spaces."""
        everything = {word.lower() for word in self.words}
        for name in self.lists:
            everything |= {entry.lower() for entry in read_list(Path(name), "one word or phrase a line")}
        inside = tuple(sorted(entry for entry in everything if _NO_SPACES.search(entry)))
        split = {tuple(_WORD.findall(entry)) for entry in everything.difference(inside)} - {()}
        phrases: dict[str, list[tuple[str, ...]]] = {}
        for phrase in sorted(phrase for phrase in split if len(phrase) > 1):
            phrases.setdefault(phrase[0], []).append(phrase)
        return frozenset(phrase[0] for phrase in split if len(phrase) == 1), phrases, inside

    def measure(self, document: Document) -> Measured:
        """Count the listed words, and all."""
        single, phrases, inside = self._entries
        text = document.text.lower()
        words = _WORD.findall(text)
        found: dict[str, int] = {}
        for index, word in enumerate(words):
            if word in single:
                found[word] = found.get(word, 0) + 1
            for phrase in phrases.get(word, ()):
                if tuple(words[index : index + len(phrase)]) == phrase:
                    name = " ".join(phrase)
                    found[name] = found.get(name, 0) + 1
        found.update((entry, text.count(entry)) for entry in inside if entry in text)
        most = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:5]
        return Measured(
            values={"listed": sum(found.values()), "words": len(words)},
            detail=", ".join(f"{word} {number}" for word, number in most),
        )

    def decide(self, measured: Measured) -> Drop | None:
        """Return whether the listed words reach both thresholds."""
        listed, words = measured.values["listed"], measured.values["words"]
        if listed < self.min_count or listed / words < self.min_share:
            return None
        return Drop(score=listed / words, threshold=self.min_share, detail=measured.detail)

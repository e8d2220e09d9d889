"""Which items are protected, and which are not though their file is named: counted, with the reason of each.

An item is protected if one of its texts is looked for: by its n-grams, or as a whole where it is too short for them.
What is left out is written beside the stage's output, item by item, so that no paper says more than was done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from tasks.decontaminate.protected_items import ItemText

NO_TEXT, NO_WORDS, ONE_WORD, TOO_SHORT, TOO_COMMON = "no text", "no words", "one word", "too short", "too common"
AMBIGUOUS = "may be a date or a range"
"""Why an item is not protected, the weakest reason first. Too common: its words stand in many documents. Ambiguous: it
is two numbers such as "9-4", without "=" or an answer."""
_REASONS = (NO_TEXT, NO_WORDS, ONE_WORD, TOO_SHORT, AMBIGUOUS)
SHOWN_CHARACTERS = 80

Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unprotected:
    """One item that nothing looks for; `text` is the longest that it has, shortened."""

    task: str
    split: str
    item: str
    reason: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemCounts:
    """Items of one task or file: found by n-grams, found whole, not protected, and why not (reason → items)."""

    items: int
    by_ngrams: int
    whole: int
    not_protected: int
    reasons: dict[str, int]

    def said(self) -> str:
        """Return the reasons as a sentence's part."""
        return ", ".join(f"{reason}: {number}" for reason, number in self.reasons.items())


@dataclass
class Protection:
    """Items by task, split and id: those found by n-grams, those found whole, and why the others are not protected."""

    texts: int = 0
    by_ngrams: set[Key] = field(default_factory=set)
    as_a_whole: set[Key] = field(default_factory=set)
    _left: dict[Key, tuple[str, str]] = field(default_factory=dict)

    def protect(self, one: ItemText, *, whole: bool) -> None:
        """Take note that a text is looked for."""
        (self.as_a_whole if whole else self.by_ngrams).add(_key(one))

    def leave(self, one: ItemText, words: Sequence[str], *, ambiguous: bool = False) -> None:
        """Take note that a text is not protected; an item has the reason of its best text."""
        reason = NO_TEXT if not one.text.strip() else _REASONS[1:][min(len(words), 2)]
        reason = AMBIGUOUS if ambiguous else reason
        known = self._left.get(_key(one))
        if known is None or _REASONS.index(reason) > _REASONS.index(known[0]):
            self._left[_key(one)] = (reason, " ".join(one.text.split())[:SHOWN_CHARACTERS])

    def left_out(self, common: Collection[Key] = ()) -> Iterator[Unprotected]:
        """Yield the items that are not protected, in order.

        Args:
            common: items of which every text is a common phrase of the corpus.
        """
        for key in sorted({*self._left, *common} - self.by_ngrams - (self.as_a_whole - set(common))):
            reason, text = (TOO_COMMON, "") if key in common else self._left[key]
            yield Unprotected(task=key[0], split=key[1], item=key[2], reason=reason, text=text)

    def counts(self, common: Collection[Key] = ()) -> dict[str, ItemCounts]:
        """Return, for each task or file, how many items it has and how many are protected in which way."""
        left: dict[str, Counter[str]] = {}
        for one in self.left_out(common):
            left.setdefault(one.task, Counter())[one.reason] += 1
        every = {*self._left, *self.by_ngrams, *self.as_a_whole}
        found: dict[str, ItemCounts] = {}
        for task in sorted({key[0] for key in every}):
            reasons = dict(sorted(left.get(task, Counter()).items()))
            items = sum(key[0] == task for key in every)
            missing = sum(reasons.values())
            by_ngrams = sum(key[0] == task for key in self.by_ngrams)
            found[task] = ItemCounts(
                items=items,
                by_ngrams=by_ngrams,
                whole=items - by_ngrams - missing,
                not_protected=missing,
                reasons=reasons,
            )
        return found


def _key(one: ItemText) -> Key:
    return (one.task, one.split, one.item)

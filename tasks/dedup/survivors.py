"""Who stays: one survivor for every dropped document, from verified facts only.

Clusters are stars, not connected components: documents are taken in order of preference, each one that is still
there survives, and takes with it those left that share its URL, payload or text, or whose text was verified to be
like its own. So a document is dropped only when its own likeness to the survivor named beside it was verified. A
chain A~B~C with A unlike C, A preferred, keeps A and C: a takedown of B finds a survivor that really stands for it,
and no chain can swallow a whole source, as connected components over long chains of look-alikes do.

Only documents that share something come here; each costs about 300 bytes of memory, and each verified pair 40.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tasks.dedup.candidates import preference_order
from tasks.dedup.corpus import Corpus, Keys, Numbers, each_once, first_places
from tasks.dedup.signatures import BAND

RULES: Final = ("exact_url", "exact_payload", "exact_text", "near_duplicate")
"""Rule names, in the order of the kinds of keys; where several hold, the first is named."""
NEAR: Final = BAND
_TEXT: Final = 2


@dataclass(frozen=True, slots=True)
class Fates:
    """What becomes of the documents that share something, from the most preferred to the least.

    Attributes:
        numbers: the documents.
        orders: their preference, which ends with their doc_id.
        survivor: place in `numbers` of the document kept in its stead, its own when it stays.
        rule: index into RULES for a dropped document, -1 for a kept one.
        similarity: verified Jaccard to the survivor; NaN where it still has to be computed (equal URL or payload,
            another text).
    """

    numbers: Numbers
    orders: Keys
    survivor: NDArray[np.int64]
    rule: NDArray[np.int8]
    similarity: NDArray[np.float64]


def choose_survivors(corpus: Corpus, groups: NDArray[Any], edges: NDArray[Any]) -> Fates:
    """Find the survivor of every document that shares something.

    Args:
        groups: members of groups of exact sharers (`candidates.GROUP`).
        edges: verified pairs (`verification.EDGE`).
    """
    numbers = each_once(np.concatenate([groups["document"], edges["left"], edges["right"]]).astype(np.int64))
    records = corpus.documents(numbers)
    preferred = preference_order(records["order"], numbers)
    numbers, orders = numbers[preferred], records["order"][preferred]
    text_of = first_places(records["text"][preferred])
    count = len(numbers)
    by_number = np.argsort(numbers)

    def places(documents: NDArray[Any]) -> NDArray[np.int64]:
        return by_number[np.searchsorted(numbers, documents.astype(np.int64), sorter=by_number)]

    del records
    classes = []
    for kind in range(NEAR):
        chosen = groups[groups["kind"] == kind]
        classes.append(np.full(count, -1, dtype=np.int64))
        classes[kind][places(chosen["document"])] = first_places(chosen["key"])
    members = [_Rows(of, np.arange(count), count) for of in classes]
    texts = _Rows(text_of, np.arange(count), count)
    left, right = text_of[places(edges["left"])], text_of[places(edges["right"])]
    likes = _Rows(np.concatenate([left, right]), np.concatenate([right, left]), count)
    likeness = np.concatenate([edges["similarity"], edges["similarity"]])[likes.order].data

    survivor = np.full(count, -1, dtype=np.int64)
    rule = np.full(count, -1, dtype=np.int8)
    similarity = np.ones(count, dtype=np.float64)
    # Clusters are small: plain loops over these views are faster than numpy on two or three numbers.
    its_survivor, its_rule, its_similarity, its_text = survivor.data, rule.data, similarity.data, text_of.data
    its_classes = [of.data for of in classes]
    unlike: list[int] = []
    for document in range(count):
        if its_survivor[document] >= 0:
            continue
        its_survivor[document] = document
        text = its_text[document]
        for kind in range(NEAR):
            group = its_classes[kind][document]
            if group < 0:
                continue
            for other in members[kind].of(group):
                if its_survivor[other] < 0:
                    its_survivor[other], its_rule[other] = document, kind
                    if its_text[other] != text:
                        unlike.append(other)
        for at in range(likes.borders[text], likes.borders[text + 1]):
            for other in texts.of(likes.values[at]):
                if its_survivor[other] < 0:
                    its_survivor[other], its_rule[other], its_similarity[other] = document, NEAR, likeness[at]
    similarity[unlike] = np.nan
    return Fates(numbers, orders, survivor, rule, similarity)


class _Rows:
    """Values grouped by a number below `count`, each group in the order in which its values were given.

    Those of group k are `values[borders[k] : borders[k + 1]]`; -1 is no group.
    """

    def __init__(self, groups: NDArray[np.int64], values: NDArray[np.int64], count: int) -> None:
        self.order = np.argsort(groups, kind="stable")
        self.values = values[self.order].data
        self.borders = np.searchsorted(groups[self.order], np.arange(count + 1)).data

    def of(self, group: int) -> memoryview:
        return self.values[self.borders[group] : self.borders[group + 1]]

"""Evaluation items: true continuations, false ones from other documents, the same on every run."""

from __future__ import annotations

import random

from tasks.holdout.evaluation_items import ContinuationSettings, continuation_items, cut_text, text_items
from tests.corpus import document, prose

SETTINGS = ContinuationSettings(
    max_items=40, items_per_document=3, context_words=30, min_context_words=10, continuation_words=8, choices=4
)
DOCUMENTS = [document(prose(i), name=f"page-{i}") for i in range(20)]


def test_the_gold_choice_is_what_the_document_goes_on_with() -> None:
    texts = {d.doc_id: d.text for d in DOCUMENTS}
    items = continuation_items(DOCUMENTS, settings=SETTINGS, seed=0)
    assert len(items) == 40
    for item in items:
        assert item.context + item.choices[item.gold] in texts[item.doc_id]
        assert item.choice_doc_ids[item.gold] == item.doc_id


def test_false_choices_come_from_other_documents_and_differ() -> None:
    texts = {d.doc_id: d.text for d in DOCUMENTS}
    for item in continuation_items(DOCUMENTS, settings=SETTINGS, seed=0):
        assert len(set(item.choices)) == len(set(item.choice_doc_ids)) == 4
        for index, (choice, source) in enumerate(zip(item.choices, item.choice_doc_ids, strict=True)):
            assert choice in texts[source]
            assert index == item.gold or choice not in texts[item.doc_id]


def test_every_choice_begins_with_its_space_and_has_as_many_words() -> None:
    for item in continuation_items(DOCUMENTS, settings=SETTINGS, seed=0):
        assert all(choice.startswith(" ") and len(choice.split()) == 8 for choice in item.choices)
        assert not item.context.endswith((" ", ".", "\n"))


def test_gold_is_at_every_position() -> None:
    golds = [item.gold for seed in range(5) for item in continuation_items(DOCUMENTS, settings=SETTINGS, seed=seed)]
    assert min(golds.count(i) for i in range(4)) > 30


def test_items_do_not_depend_on_the_order_of_documents() -> None:
    shuffled = random.Random(1).sample(DOCUMENTS, len(DOCUMENTS))
    assert continuation_items(shuffled, settings=SETTINGS, seed=0) == continuation_items(
        DOCUMENTS, settings=SETTINGS, seed=0
    )
    assert text_items(shuffled, max_items=5, max_characters=100, seed=0) == text_items(
        DOCUMENTS, max_items=5, max_characters=100, seed=0
    )


def test_pages_captured_again_are_asked_about_in_the_same_places() -> None:
    again = [document(d.text, name=f"{number} again") for number, d in enumerate(DOCUMENTS)]
    first, second = (continuation_items(docs, settings=SETTINGS, seed=0) for docs in (DOCUMENTS, again))
    assert {item.doc_id for item in first}.isdisjoint(item.doc_id for item in second)
    assert [(item.context, item.choices, item.gold) for item in second] == [
        (item.context, item.choices, item.gold) for item in first
    ]


def test_another_seed_gives_other_items() -> None:
    first = continuation_items(DOCUMENTS, settings=SETTINGS, seed=0)
    assert first != continuation_items(DOCUMENTS, settings=SETTINGS, seed=1)


def test_documents_with_equal_text_never_stand_against_each_other() -> None:
    twins = [document(DOCUMENTS[0].text, name=f"twin-{i}") for i in range(3)]
    for item in continuation_items([*twins, *DOCUMENTS[1:6]], settings=SETTINGS, seed=0):
        true = item.choices[item.gold]
        assert sum(true == choice for choice in item.choices) == 1


def test_what_a_document_quotes_is_no_false_choice_for_it() -> None:
    quoting = document("\n".join([prose(50), *(d.text for d in DOCUMENTS[:4])]), name="quoting")
    items = continuation_items([quoting, *DOCUMENTS[:8]], settings=SETTINGS, seed=0)
    asked = [item for item in items if item.doc_id == quoting.doc_id]
    assert len(asked) == SETTINGS.items_per_document
    for item in asked:
        assert [choice.strip() in quoting.text for choice in item.choices].count(True) == 1


def test_a_language_without_spaces_gives_items_whose_choices_join_without_a_space() -> None:
    letters = [chr(c) for c in range(0x4E00, 0x4E80)]
    documents = [
        document("".join(random.Random(i).choices(letters, k=120)), name=f"zh-{i}", language="zh") for i in range(8)
    ]
    items = continuation_items(documents, settings=SETTINGS, seed=0)
    assert items
    texts = {d.doc_id: d.text for d in documents}
    assert all(item.context + item.choices[item.gold] in texts[item.doc_id] for item in items)


def test_documents_that_are_too_short_give_no_items() -> None:
    short = [document("only a few words here", name=str(i)) for i in range(9)]
    assert continuation_items(short, settings=SETTINGS, seed=0) == []


def test_texts_are_cut_after_a_whole_word() -> None:
    assert cut_text("alpha beta gamma", 11) == "alpha beta"
    assert cut_text("alpha beta", 10) == "alpha beta"
    assert cut_text("x" * 30, 10) == "x" * 10

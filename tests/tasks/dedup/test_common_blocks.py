"""Lines and paragraphs that stand in too many documents: what is cut, who keeps it, and what the ledger says."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts.document import Document, make_doc_id
from tasks.dedup.passages import block_keys, cut_blocks, split_blocks
from tasks.dedup.stage import Params
from tests.tasks.dedup.conftest import Dedup, document

NOTICE = "This page is part of the handbook, see the index."


def own(seed: int, words: int = 60) -> str:
    return " ".join(f"w{random.Random(seed * 1_000 + n).randint(0, 10**6)}" for n in range(words))


def pages(count: int, notice: str = NOTICE, first: int = 0) -> list[Document]:
    return [document(f"page-{n}", f"{own(n)}\n{notice}\n{own(n + 500)}") for n in range(first, first + count)]


def on_host(made: Document, host: str) -> Document:
    return Document(**{**{f: getattr(made, f) for f in made.__dataclass_fields__}, "host": host})


def test_a_line_in_more_documents_than_allowed_stays_in_the_preferred_one_only(dedup: Dedup) -> None:
    documents = [*pages(6), *pages(5, "Five pages have this line, and no more.", first=10)]
    documents.append(document("longest", f"{own(90, 200)}\n{NOTICE.upper()}  \n{own(91)}"))
    outcome = dedup(documents[:4], documents[4:], params=Params(line_documents=5))
    texts = {d.record_id: d.text for d in outcome.kept}
    assert [name for name, text in texts.items() if "handbook" in text.lower()] == ["longest"]
    assert sum("Five pages" in text for text in texts.values()) == 5
    assert texts["page-0"] == f"{own(0)}\n{own(500)}"
    assert {row.record_id for row in outcome.ledger} == {f"page-{n}" for n in range(6)}
    for row in outcome.ledger:
        assert (row.action, row.rule, row.score, row.detail) == ("edit", "common_lines", 1.0, "1 of 3 lines cut")
    assert outcome.manifest.counts.dropped == {}


def test_a_new_shard_that_makes_a_line_common_cuts_it_from_the_old_ones(dedup: Dedup) -> None:
    params = Params(line_documents=5)
    assert not dedup(pages(3), pages(2, first=10), params=params).ledger
    outcome = dedup(pages(3), pages(2, first=10), pages(3, first=20), params=params)
    assert sum("handbook" in d.text for d in outcome.kept) == 1
    assert len(outcome.ledger) == 7


def test_nobody_keeps_it_where_a_param_says_so(dedup: Dedup) -> None:
    outcome = dedup(pages(6), params=Params(line_documents=5, common_keep="none"))
    assert not any("handbook" in d.text for d in outcome.kept)


def test_copies_of_a_page_do_not_make_its_lines_common(dedup: Dedup) -> None:
    copies = [document(f"copy-{n}", f"{own(1)}\n{NOTICE}\n{own(2)}") for n in range(9)]
    outcome = dedup(copies, pages(2, first=20), params=Params(line_documents=3))
    assert sum("handbook" in d.text for d in outcome.kept) == 3
    assert {row.rule for row in outcome.ledger} == {"exact_text"}


def test_a_line_is_cut_from_the_host_that_repeats_it(dedup: Dedup) -> None:
    here = [on_host(d, "here.example") for d in pages(20)]
    there = [on_host(d, "there.example") for d in [*pages(4, first=30), *pages(16, "Another line altogether.", 40)]]
    small = [on_host(d, "small.example") for d in pages(5, first=70)]
    outcome = dedup(here + small, there, params=Params(line_host_share=0.5))
    left = {
        host: sum("handbook" in d.text for d in outcome.kept if d.host == host)
        for host in ("here.example", "there.example", "small.example")
    }
    assert left == {"here.example": 1, "there.example": 4, "small.example": 5}
    assert sum("Another line" in d.text for d in outcome.kept) == 1


def test_a_paragraph_goes_as_a_whole(dedup: Dedup) -> None:
    notice = "Two lines of licence,\nwhich stand together."
    documents = [document(f"page-{n}", f"{own(n)}\n\n{notice}\n\n{own(n + 500)}") for n in range(4)]
    documents.append(document("other", f"{own(80)}\nwhich stand together."))
    outcome = dedup(documents, params=Params(paragraph_documents=3))
    assert sum("licence" in d.text for d in outcome.kept) == 1
    assert {row.rule for row in outcome.ledger} == {"common_paragraphs"}
    assert any(d.text == f"{own(0)}\n\n{own(500)}" for d in outcome.kept)


def test_what_is_left_too_short_is_dropped_and_says_so(dedup: Dedup) -> None:
    stubs = [document(f"stub-{n}", f"{NOTICE}\nshort {n}") for n in range(3)]
    documents = [*pages(5), *stubs]
    outcome = dedup(documents, params=Params(line_documents=4, rest_min_characters=100))
    dropped = [row for row in outcome.ledger if row.action == "drop"]
    assert {row.record_id for row in dropped} == {"stub-0", "stub-1", "stub-2"}
    assert {(row.rule, row.score, row.threshold) for row in dropped} == {("too_short_after_cut", 7.0, 100.0)}
    assert outcome.manifest.counts.dropped == {"too_short_after_cut": 3}
    assert outcome.manifest.counts.out == 5


def test_short_lines_are_never_cut(dedup: Dedup) -> None:
    outcome = dedup(pages(6, "Parameters"), params=Params(line_documents=2))
    assert outcome.ledger == []


def test_parts_and_memory_change_nothing(dedup: Dedup) -> None:
    documents = [on_host(d, f"{index % 2}.example") for index, d in enumerate(pages(30))]
    params = {"line_documents": 20, "line_host_share": 0.4, "host_documents": 5}
    expected = {d.doc_id: d.text for d in dedup(documents, params=Params(**params)).kept}
    shuffled = random.Random(1).sample(documents, len(documents))
    pieces = dedup(shuffled[:7], shuffled[7:], params=Params(**params, keys_in_memory=16))
    assert {d.doc_id: d.text for d in pieces.kept} == expected
    assert sum("handbook" in text for text in expected.values()) == 1


@given(lines=st.lists(st.sampled_from(["", " ", "a line long enough to count", "another such line, as long", "x"])))
def test_cutting_nothing_leaves_a_text_as_it_is_and_cutting_all_leaves_only_short_lines(lines: list[str]) -> None:
    text = "\n".join(lines)
    assert cut_blocks(text, frozenset(), 20) == (text, {})
    keys = frozenset(block_keys(text, ("line",), 20).tolist())
    rest, done = cut_blocks(text, keys, 20)
    assert all(len(line) < 20 for line in split_blocks(rest, "line"))
    assert sum(cut for cut, _ in done.values()) == sum(len(line) >= 20 for line in lines)


def test_survivors_named_for_duplicates_are_among_the_documents(dedup: Dedup) -> None:
    documents = [*pages(6), *(document(f"copy-{n}", d.text, captured_at="2020") for n, d in enumerate(pages(2)))]
    outcome = dedup(documents, params=Params(line_documents=3))
    kept = {d.doc_id for d in outcome.kept}
    copies = [row for row in outcome.ledger if row.rule == "exact_text"]
    assert {row.doc_id for row in copies} == {make_doc_id("test", f"page-{n}") for n in range(2)}
    assert all(row.survivor_id in kept for row in copies)
    with pytest.raises(ValueError, match="greater than 0"):
        Params(line_host_share=0)

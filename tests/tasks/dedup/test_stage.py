"""The dedup stage on planted duplicates: what is dropped, in favour of what, and what the ledger says."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.contracts.document import Document, make_doc_id
from tasks.contracts.errors import InputError, ParamsError
from tasks.contracts.manifest import manifest_hash
from tasks.contracts.workspace import ROOT
from tasks.dedup.minhash import choose_bands, found_with
from tasks.dedup.shingles import jaccard, shingles
from tasks.dedup.stage import Params
from tests.tasks.dedup.conftest import Dedup, document

VOCABULARY = [f"word{number}" for number in range(3_000)]
WORDS = 300


def prose(seed: int, words: int = WORDS) -> str:
    return " ".join(random.Random(seed).choices(VOCABULARY, k=words))


def altered(text: str, changes: int, seed: int) -> str:
    """The text with some words replaced, far apart from each other, so that each costs five shingles."""
    words = text.split()
    step = len(words) // max(changes, 1)
    for number in range(changes):
        words[number * step + step // 2] = f"changed{seed}x{number}"
    return " ".join(words)


def true_jaccard(left: str, right: str) -> float:
    a, b = shingles(left, size=5), shingles(right, size=5)
    return jaccard(a, b, left_size=len(a), right_size=len(b))


def test_pairs_well_above_the_threshold_are_found_and_none_below_is_dropped(dedup: Dedup) -> None:
    documents, above, below = [], [], []
    for seed in range(48):
        original = prose(seed)
        copy = altered(original, changes=1 + seed % 12, seed=seed)
        documents += [document(f"original-{seed}", original), document(f"copy-{seed}", copy)]
        similarity = true_jaccard(original, copy)
        pair = {make_doc_id("test", f"original-{seed}"), make_doc_id("test", f"copy-{seed}")}
        if similarity >= 0.9:
            above.append(pair)
        elif similarity < 0.8:
            below.append(pair)
    assert len(above) >= 10
    assert len(below) >= 15
    outcome = dedup(documents)
    dropped = {row.doc_id: row for row in outcome.ledger}
    for first, second in above:
        assert len({first, second} & dropped.keys()) == 1
    for pair in below:
        assert not pair & dropped.keys()
    texts = {d.doc_id: d.text for d in documents}
    for row in outcome.ledger:
        assert row.score == pytest.approx(true_jaccard(texts[str(row.doc_id)], texts[str(row.survivor_id)]))
        assert row.score is not None
        assert row.score >= 0.8


def test_equal_payloads_and_equal_texts_are_exact_duplicates(dedup: Dedup) -> None:
    same = "sha1:SAME"
    outcome = dedup(
        [
            document("payload-1", prose(1), payload_digest=same),
            document("payload-2", prose(2, WORDS - 50), payload_digest=same),
            document("text-1", "Only A Few Words", payload_digest="sha1:A"),
            document("text-2", "only a few  words", payload_digest="sha1:B"),
            document("none-1", prose(3)),
            document("none-2", prose(4)),
        ]
    )
    fates = outcome.fates()
    assert fates[make_doc_id("test", "payload-2")] == ("exact_payload", make_doc_id("test", "payload-1"))
    assert fates[make_doc_id("test", "text-1")] == ("exact_text", make_doc_id("test", "text-2"))
    assert outcome.manifest.counts.dropped == {"exact_payload": 1, "exact_text": 1}
    scores = {row.rule: row.score for row in outcome.ledger}
    assert scores == {"exact_payload": 0.0, "exact_text": 1.0}, "the similarity is the true one, also where it is low"


def test_short_texts_are_duplicates_only_when_their_normal_form_is_equal(dedup: Dedup) -> None:
    texts = {"empty": "", "blank": " \n ", "dots": "...", "one": "hello", "other": "world", "one!": "hello!"}
    outcome = dedup([document(name, text) for name, text in texts.items()])
    assert {row.record_id for row in outcome.ledger} == {"empty"}, "the longer of the two blank texts stays"
    assert len(outcome.kept) == len(texts) - 1


def test_a_chain_drops_only_what_is_like_the_survivor(dedup: Dedup) -> None:
    words = prose(7).split()
    backwards = [word[::-1] for word in words]
    texts = {
        "first": " ".join(words),
        "middle": " ".join(backwards[:20] + words[20:]),
        "last": " ".join(backwards[:20] + words[20:-20] + backwards[-20:]),
    }
    assert true_jaccard(texts["first"], texts["middle"]) > 0.8
    assert true_jaccard(texts["middle"], texts["last"]) > 0.8
    assert true_jaccard(texts["first"], texts["last"]) < 0.8

    def kept(earliest: str) -> set[str]:
        times = {name: "2020" if name == earliest else "2021" for name in texts}
        documents = [document(n, t, captured_at=times[n]) for n, t in texts.items()]
        return {d.record_id for d in dedup(documents, params=Params(bands=64, rows=2)).kept}

    assert kept("first") == {"first", "last"}
    assert kept("last") == {"first", "last"}
    assert kept("middle") == {"middle"}


def test_the_longest_then_the_earliest_then_the_smallest_id_survives(dedup: Dedup) -> None:
    text = prose(5)
    longer = text + " and a few words more"
    early, late = "2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z"
    outcome = dedup([document("a", text), document("b", longer, captured_at=late)])
    assert [d.record_id for d in outcome.kept] == ["b"]
    outcome = dedup([document("a", text, captured_at=late), document("b", text, captured_at=early)])
    assert [d.record_id for d in outcome.kept] == ["b"]
    outcome = dedup([document("a", text), document("b", text, captured_at=late)])
    assert [d.record_id for d in outcome.kept] == ["b"], "an unknown time comes last"
    outcome = dedup([document("a", text), document("b", text)])
    assert outcome.kept[0].doc_id == min(make_doc_id("test", "a"), make_doc_id("test", "b"))


def test_who_survives_is_a_matter_of_params(dedup: Dedup) -> None:
    text = prose(6)
    made = {
        "short": document("short", text, captured_at="2021"),
        "long": document("long", text + " and more", captured_at="2022", host="mirror.example"),
        "old": document("old", text + " end", captured_at="2020", host="other.example"),
        "timeless": document("timeless", text + " or", host="www.best.example"),
    }

    def survivor(**settings: object) -> str:
        (kept,) = dedup(list(made.values()), params=Params.model_validate(settings)).kept
        return kept.record_id

    assert survivor() == "long"
    assert survivor(prefer=["shortest"]) == "short"
    assert survivor(prefer=["earliest", "longest"]) == "old"
    assert survivor(prefer=["latest"]) == "long", "an unknown time is not the latest"
    assert survivor(prefer_hosts=["*.best.example", "mirror.example"]) == "timeless"
    assert survivor(prefer_hosts=["other.example", "*"]) == "old"
    smallest = min(made.values(), key=lambda d: d.doc_id).record_id
    assert survivor(prefer=[]) == smallest


def test_equal_urls_are_one_page_unless_the_params_say_otherwise(dedup: Dedup) -> None:
    url = "http://pages.example/same"
    captures = [
        document("new", prose(31) + " longer", captured_at="2022", url=url),
        document("old", prose(32), captured_at="2021", url=url),
        document("nowhere-1", prose(33), url=""),
        document("nowhere-2", prose(34), url=""),
    ]
    outcome = dedup(captures)
    (row,) = outcome.ledger
    assert (row.record_id, row.rule, row.score, row.threshold) == ("old", "exact_url", 0.0, None)
    assert row.survivor_id == make_doc_id("test", "new")
    assert len(dedup(captures, params=Params(exact=("payload", "text"))).kept) == 4


def test_the_ledger_names_all_members_of_a_cluster_and_their_survivor(dedup: Dedup) -> None:
    copies = [document(f"copy-{n}", altered(prose(9), changes=1, seed=n)) for n in range(4)]
    outcome = dedup(copies[:2], copies[2:], [document("alone", prose(10))])
    by_name = {d.record_id: d for d in outcome.kept}
    del by_name["alone"]
    (survivor,) = by_name.values()
    assert {row.survivor_id for row in outcome.ledger} == {survivor.doc_id}
    assert {row.record_id for row in outcome.ledger} | {survivor.record_id} == {d.record_id for d in copies}
    for row in outcome.ledger:
        assert (row.stage, row.action, row.rule, row.threshold) == ("dedup", "drop", "near_duplicate", 0.8)
        assert row.url == f"http://pages.example/{row.record_id}"


def corpus() -> list[Document]:
    documents = [document(f"page-{n}", prose(n, 80)) for n in range(12)]
    documents += [document(f"near-{n}", altered(prose(n, 80), 1 + n % 2, n), captured_at="2020") for n in range(6)]
    documents += [document(f"twin-{n}", prose(n, 80).upper(), payload_digest=f"sha1:{n % 2}") for n in range(4)]
    return [*documents, document("empty-1", ""), document("empty-2", "")]


@given(order=st.permutations(range(len(corpus()))), cuts=st.sets(st.integers(0, len(corpus())), max_size=4))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_survivors_depend_neither_on_order_nor_on_shards(dedup: Dedup, order: list[int], cuts: set[int]) -> None:
    documents = corpus()
    shuffled = [documents[index] for index in order]
    bounds = [0, *sorted(cuts), len(documents)]
    parts = [shuffled[start:stop] for start, stop in itertools.pairwise(bounds)]
    outcome = dedup(*parts)
    fates = outcome.fates()
    assert fates == dedup(documents).fates()
    for rule, survivor in fates.values():
        assert rule is None or fates[str(survivor)] == (None, None), "no cluster vanishes: each survivor is kept"
    counts = outcome.manifest.counts
    assert counts.in_ == len(documents) == counts.out + sum(counts.dropped.values())


def test_outputs_do_not_depend_on_the_hash_seed(dedup: Dedup, tmp_path: Path) -> None:
    here = dedup(corpus()[:11], corpus()[11:])
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from tasks.dedup.stage import Params, run
        run(params=Params(), inputs={"filter": Path(sys.argv[1])}, output=Path(sys.argv[2]))
        """
    )
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    output, state = tmp_path / "elsewhere", str(tmp_path / "state-elsewhere")
    environment = {**os.environ, "PYTHONHASHSEED": seed, "HEADWATER_STATE": state, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, str(here.folder.parent / "filter"), str(output)]
    subprocess.run(command, env=environment, check=True)
    assert manifest_hash(output) == manifest_hash(here.folder)


def test_a_very_long_text_is_compared_over_its_whole_length(dedup: Dedup) -> None:
    beginning = prose(20, 600)
    pair = [document("a", beginning + " " + prose(21, 3_000)), document("b", beginning + " " + prose(22, 3_000))]
    copies = [document("c", prose(23, 3_000)), document("d", altered(prose(23, 3_000), 6, 1))]
    outcome = dedup([*pair, *copies], params=Params(max_shingles=500))
    assert {row.record_id for row in outcome.ledger} < {"c", "d"}
    assert len(outcome.ledger) == 1


def test_a_corpus_without_documents_is_written_as_such(dedup: Dedup) -> None:
    assert dedup([]).manifest.counts.in_ == 0
    assert dedup([], [document("a", prose(1))]).manifest.counts.out == 1


def test_bands_find_nearly_all_pairs_a_tenth_above_the_threshold() -> None:
    for threshold in (0.5, 0.7, 0.8, 0.9):
        bands, rows = choose_bands(threshold, 128, 0.95)
        assert bands * rows <= 128
        assert found_with(threshold, bands, rows) >= 0.9
        assert found_with(threshold + 0.1, bands, rows) >= 0.99
    with pytest.raises(ParamsError, match="too few permutations"):
        choose_bands(0.1, 8, 0.95)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="together"):
        Params(bands=4)
    with pytest.raises(ValidationError, match="more than num_perm"):
        Params(bands=40, rows=4)
    with pytest.raises(ValidationError):
        Params(threshold=0)
    with pytest.raises(ValidationError, match="opposite"):
        Params(prefer=("longest", "shortest"))
    with pytest.raises(ValidationError, match="no effect"):
        Params(prefer=("longest",), prefer_hosts=("a.example",))


def test_a_document_with_an_id_of_another_form_is_refused(dedup: Dedup) -> None:
    made = document("a", prose(1))
    other = Document(**{**{f: getattr(made, f) for f in made.__dataclass_fields__}, "doc_id": "page-1"})
    with pytest.raises(InputError, match="another form"):
        dedup([other])

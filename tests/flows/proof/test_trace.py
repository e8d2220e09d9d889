"""Every page of a workspace made by hand is traced to the fate that was planted for it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from flows.history.trace_index import open_index
from flows.proof.trace import DocumentTrace, HostTrace, Trace, Tracer
from flows.proof.trace_release import find_release, release_sources
from flows.proof.trace_texts import find_text
from flows.proof.trace_training import Training
from tasks.contracts.errors import InputError, ManifestError, UsageError
from tasks.contracts.manifest import Counts, manifest_hash, read_manifest
from tests.flows.proof.traced_workspace import (
    FORBIDDEN,
    HOST,
    PAGES,
    REVISIT,
    ROBOTS_TXT,
    Planted,
    Traced,
    ids_of,
    make,
    rewrite_ledger,
    text_of,
)
from tests.planted import plant_manifest
from training.champions import promote

STAGES = ("extract", "filter", "dedup", "perplexity", "holdout", "decontaminate", "mix")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    folder = tmp_path_factory.mktemp("traced")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADWATER_STATE", str(folder / ".headwater"))
        traced = make(folder)
        open_index(traced.data)
    return traced


@pytest.fixture
def traced(original: Traced, workspace: Path) -> Traced:
    shutil.copytree(original.root, workspace, dirs_exist_ok=True)
    return Traced(workspace, original.documents)


def ask(traced: Traced, query: str, limit: int = 20) -> Trace:
    found = Tracer(open_index(traced.data), traced.data).trace(query, limit)
    assert isinstance(found, Trace)
    return found


def only(traced: Traced, query: str) -> DocumentTrace:
    found = ask(traced, query)
    assert found.total == 1, found
    return found.documents[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_page_is_traced_through_the_stages_to_its_end(traced: Traced, page: Planted) -> None:
    document = only(traced, page.url)
    assert document.subject.doc_id == traced.documents[page.name].doc_id
    last = STAGES.index(page.dropped_by) if page.dropped_by else len(STAGES)
    kept = [event.stage for event in document.events if event.action == "kept"]
    assert kept == list(STAGES[:last])
    edits = [(event.stage, event.rule) for event in document.events if event.action == "edit"]
    assert edits == ([(page.edited_by, "c4")] if page.edited_by else [])
    drop = document.dropped
    if page.dropped_by:
        assert drop is not None
        assert (drop.stage, drop.rule, drop.score, drop.threshold) == (page.dropped_by, page.rule, 0.91, 0.8)
        assert drop.detail == f"because of {page.name}"
        assert [place.shard for place in document.tokens] == (["validation.bin"] if page.name == "held" else [])
    else:
        assert drop is None
        assert [place.epoch for place in document.tokens] == list(range(1, page.epochs + 1))


def test_each_row_that_is_named_says_what_the_event_says(traced: Traced) -> None:
    for page in PAGES:
        for event in only(traced, page.url).events:
            row = pq.read_table(traced.data / event.stage / event.file).slice(event.row, 1).to_pylist()[0]
            assert row["doc_id"] == traced.documents[page.name].doc_id
            assert row.get("rule") == event.rule


def test_the_scores_stand_at_the_stage_that_measured_them(traced: Traced) -> None:
    scores = {event.stage: dict(event.scores) for event in only(traced, PAGES[0].url).events if event.scores}
    assert scores == {"perplexity": {"perplexity.value": 99.5}, "mix": {"mix.epochs": 1.0}}


def test_a_dropped_duplicate_leads_to_its_survivor_and_back(traced: Traced) -> None:
    found = ask(traced, f"http://{HOST}/copy.html")
    copy, survivor = found.documents
    assert copy.outcome == "dropped by dedup: near_duplicate"
    assert survivor.subject.doc_id == traced.documents["kept"].doc_id
    assert survivor.survivor_of == copy.subject.doc_id
    assert survivor.outcome.startswith("in training")
    assert {(one.url, one.rule) for one in survivor.duplicates} == {
        (f"http://{HOST}/copy.html", "near_duplicate"),
        (REVISIT, "revisit"),
    }
    assert survivor.duplicate_count == 2


def test_a_revisit_is_shown_with_the_document_that_has_its_payload(traced: Traced) -> None:
    found = ask(traced, REVISIT)
    assert [capture.kind for capture in found.captures if capture.url == REVISIT] == ["revisit"]
    assert [document.subject.url for document in found.documents] == [REVISIT, PAGES[0].url]
    assert found.documents[0].outcome == "dropped by crawl: revisit"


def test_the_evidence_of_a_capture_is_what_the_crawl_wrote_down(traced: Traced) -> None:
    (capture,) = ask(traced, f"http://{HOST}/refused.html").captures
    assert capture.evidence is not None
    assert (capture.status, capture.address, capture.captured_at) == ("200 OK", "192.0.2.7", "2026-01-02T03:04:05.678Z")
    assert {str(signal) for signal in capture.evidence.signals} == {"header:noai", "ai.txt:disallow"}
    assert capture.evidence.robots.allowed
    assert capture.evidence.licenses == ("https://creativecommons.org/licenses/by/4.0/",)
    assert capture.header_signals == ("header:nosnippet",)
    document = traced.documents["refused"]
    assert (capture.warc, capture.offset) == (document.warc_path, document.warc_offset)


def test_a_url_that_robots_txt_forbids_is_shown_with_that_file(traced: Traced) -> None:
    found = ask(traced, FORBIDDEN)
    assert [document.outcome for document in found.documents] == ["dropped by crawl: robots"]
    assert [record.url for record in found.records] == [ROBOTS_TXT]


@pytest.mark.parametrize("name", ["doc_id", "record_id", "payload_digest"])
@pytest.mark.parametrize("page", ["kept", "refused", "short"])
def test_other_names_lead_to_the_same_document(traced: Traced, page: str, name: str) -> None:
    document = traced.documents[page]
    found = {one.subject.url for one in ask(traced, getattr(document, name)).documents}
    again = {REVISIT} if (page, name) == ("kept", "payload_digest") else set()
    assert found == {document.url} | again


def test_a_record_id_may_be_given_without_its_brackets(traced: Traced) -> None:
    record_id = traced.documents["kept"].record_id
    for spelled in (record_id[1:-1], record_id.removeprefix("<urn:uuid:").removesuffix(">")):
        assert only(traced, spelled).subject.record_id == record_id


@pytest.mark.parametrize(
    "spelled",
    [
        f"HTTP://{HOST.upper()}:80/x/../kept.html#top",
        f"http://{HOST}/%6bept.html",
        f"{HOST}/kept.html",
        f"http://{HOST}/kept.html?utm_source=mail",
        f"  http://{HOST}/kept.html\n",
    ],
)
def test_a_url_is_found_however_it_is_spelled(traced: Traced, spelled: str) -> None:
    assert only(traced, spelled).subject.url == f"http://{HOST}/kept.html"


def test_the_counts_of_a_host_are_those_of_the_manifests(traced: Traced) -> None:
    found = Tracer(open_index(traced.data), traced.data).trace(HOST)
    assert isinstance(found, HostTrace)
    for stage in STAGES:
        manifest = read_manifest(traced.data / stage)
        drops = {what.removeprefix("drop "): n for what, n in found.counts[stage].items() if what.startswith("drop ")}
        assert drops == manifest.counts.dropped
        assert found.counts[stage]["kept"] == manifest.counts.out
    assert found.counts["crawl"] == {"drop revisit": 1, "drop robots": 1}
    assert found.counts["filter"]["edit c4"] == 1
    assert len(found.documents) == len(PAGES) + 2


def test_the_steps_of_a_document_are_those_whose_batches_hold_it(traced: Traced) -> None:
    training = Training(traced.data)
    expected: dict[str, dict[tuple[int, int], int]] = {}
    for step in range(training.order.steps):
        for rank in range(training.order.ranks):
            batch = training.batch(step, rank)
            assert batch.equal
            for piece in batch.pieces:
                seen = expected.setdefault(piece.doc_id, {})
                seen[step, rank] = seen.get((step, rank), 0) + piece.tokens
    for name in ("kept", "twice"):
        document = only(traced, f"http://{HOST}/{name}.html")
        found: dict[tuple[int, int], int] = {}
        for place in document.tokens:
            for one in place.seen:
                found[one.step, one.rank] = found.get((one.step, one.rank), 0) + one.tokens
        assert found == expected[document.subject.doc_id or ""]
        assert 0 < sum(found.values()) < sum(place.length for place in document.tokens) * 2


def test_the_pieces_of_a_step_are_the_tokens_of_their_documents(traced: Traced) -> None:
    training = Training(traced.data)
    by_id = {document.doc_id: document for document in traced.documents.values()}
    order = training.order
    for step in range(order.steps):
        for rank in range(order.ranks):
            pieces = training.batch(step, rank).pieces
            rows = np.zeros((len({piece.row for piece in pieces}), order.seq_len), "<u2")
            ends = [0] * len(rows)
            for piece in pieces:
                ids = ids_of(by_id[piece.doc_id])
                assert piece.of == len(ids)
                rows[piece.row, ends[piece.row] : ends[piece.row] + piece.tokens] = ids[
                    piece.within : piece.within + piece.tokens
                ]
                ends[piece.row] += piece.tokens
            expected = training.packing.rows(order.sequences_at(step, rank), _stream(training), 0).tokens[:, 1:]
            assert (rows == expected).all()


def _stream(training: Training) -> Any:
    from training.train.packing import TokenStream

    return TokenStream(training.tokens, training.order.shards, training.order.dtype)


def test_a_batch_that_is_not_what_the_trainer_recorded_is_said_to_be_another(traced: Traced) -> None:
    path = traced.data / "tokenize" / "part-00000.bin"
    content = bytearray(path.read_bytes())
    content[::2] = bytes(len(content[::2]))
    path.write_bytes(content)
    result = run("trace", "--step", "0")
    assert result.exit_code == 1
    assert "NOT what the trainer recorded" in result.stdout


def test_steps_are_not_made_up_where_the_token_shards_are_others(traced: Traced) -> None:
    order = json.loads((traced.data / "train" / "order.json").read_bytes())
    (traced.data / "train" / "order.json").write_text(json.dumps({**order, "tokenize_manifest": "0" * 64}))
    found = ask(traced, PAGES[0].url)
    assert found.training.problem is not None
    assert all(not place.seen for place in found.documents[0].tokens)
    assert isinstance(run("trace", "--step", "0").exception, ManifestError)


def test_a_text_leads_to_its_document_whatever_its_case_and_spaces(traced: Traced) -> None:
    match = find_text(open_index(traced.data), f"  {text_of('short').upper()}\n\n")
    assert match is not None
    assert (match.equal, match.doc_id, match.stage) == (True, traced.documents["short"].doc_id, "extract")
    edited = find_text(open_index(traced.data), traced.documents["kept"].text)
    assert edited is not None
    assert (edited.equal, edited.stage) == (True, "mix")


def test_a_passage_leads_to_the_nearest_document_and_nothing_to_none(traced: Traced) -> None:
    words = text_of("odd").split()
    match = find_text(open_index(traced.data), "Some words before. " + " ".join(words[:45]))
    assert match is not None
    assert (match.equal, match.doc_id) == (False, traced.documents["odd"].doc_id)
    assert 0.5 < match.jaccard < match.contained < 1
    assert find_text(open_index(traced.data), "what nobody ever wrote in any of these pages at all") is None


def test_the_sources_of_a_release_add_up(traced: Traced) -> None:
    sources = release_sources(find_release("small", traced.data), traced.data)
    tokens = len(ids_of(traced.documents["kept"])) + 2 * len(ids_of(traced.documents["twice"]))
    assert (sources.tokens, sources.documents) == (tokens, 2)
    for groups in sources.groups.values():
        assert [(group.tokens, group.documents, group.share) for group in groups] == [(tokens, 2, 1.0)]
    assert [group.name for group in sources.groups["host"]] == [HOST]


def test_of_releases_with_one_name_the_one_that_stands_here_is_meant(traced: Traced, tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    shutil.copytree(traced.data / "release", newer)
    (newer / "_manifest.json").unlink()
    plant_manifest(
        newer, stage="release", unit="files", params={"name": "small"}, inputs={}, counts=Counts(in_=1, out=1)
    )
    promote(newer)
    assert find_release("small", traced.data).manifest_sha256 == manifest_hash(traced.data / "release")
    assert find_release(manifest_hash(newer)[:12], traced.data).manifest_sha256 == manifest_hash(newer)
    shutil.rmtree(traced.data / "release")
    assert find_release("small", traced.data).manifest_sha256 == manifest_hash(newer)


def test_sources_are_not_taken_from_other_data_than_the_release_was_made_of(traced: Traced) -> None:
    rewrite_ledger(traced, "mix", "another_rule")
    with pytest.raises(InputError, match="other data"):
        release_sources(find_release("small", traced.data), traced.data)
    with pytest.raises(UsageError):
        find_release("large", traced.data)


def run(*arguments: str) -> Any:
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, list(arguments))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([PAGES[1].url], ["near_duplicate", "survivor", "score 0.91", "threshold 0.8", "robots.txt", "192.0.2.7"]),
        ([FORBIDDEN], ["dropped by crawl: robots", ROBOTS_TXT]),
        ([HOST, "--limit", "3"], ["(host)", "near_duplicate", "first 3 documents"]),
        (["--step", "1", "--rank", "1"], ["step 1, rank 1", "equal to what the trainer recorded"]),
        (["--release", "small"], [HOST, "100.0%", "creativecommons"]),
        (["--index"], ["dedup"]),
    ],
)
def test_the_command_is_readable_in_80_columns_and_for_scripts(
    traced: Traced, arguments: list[str], words: list[str]
) -> None:
    result = run("trace", *arguments)
    assert result.exit_code == 0, result.output
    assert all(word in result.stdout for word in words), result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    parsed = run("trace", *arguments, "--json")
    assert parsed.exit_code == 0
    assert json.loads(parsed.stdout)


def test_what_was_never_seen_is_said_so_with_exit_code_1(traced: Traced) -> None:
    for query in ("http://nowhere.example/", "nowhere.example", "0" * 32, "<urn:uuid:nothing>"):
        result = run("trace", query)
        assert result.exit_code == 1
        assert "never seen" in result.stdout
        assert json.loads(run("trace", query, "--json").stdout)["documents"] == []


@pytest.mark.parametrize(
    "arguments",
    [[], ["x.example", "--step", "1"], ["--rank", "0", HOST], ["--step", "99999"], ["--text", "no-such-file"]],
)
def test_wrong_use_is_an_error_that_says_so(traced: Traced, arguments: list[str]) -> None:
    result = run("trace", *arguments)
    assert isinstance(result.exception, UsageError), result.output


def test_no_stage_at_all_is_an_error(workspace: Path) -> None:
    assert isinstance(run("trace", HOST).exception, InputError)


def test_the_recorded_hash_is_of_the_rows_in_order(traced: Traced) -> None:
    training = Training(traced.data)
    rows = training.packing.rows(training.order.sequences_at(0, 0), _stream(training), 0)
    assert training.batch(0, 0).sha256 == hashlib.sha256(rows.tokens.tobytes()).hexdigest()

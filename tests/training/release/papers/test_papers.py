"""The papers are valid in their formats, hold the manifests' figures and no others, and say what nobody stated."""

import json
import re
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import mlcroissant
import pytest
import rdflib
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import ModelCardData
from markdown_it import MarkdownIt
from pydantic import ValidationError

from tasks.contracts.durable_files import write_json
from tasks.contracts.errors import InputError
from tasks.contracts.ledger import LedgerRow, write_ledger
from tests.conftest import ROOT
from tests.training.release.papers.chain import DAYS, PARAMS, make_chain
from training.release.papers.croissant import croissant
from training.release.papers.eu_summary import eu_summary_markdown, summary, top_domains
from training.release.papers.facts import Facts, read_facts, read_libraries
from training.release.papers.ledgers import read_edits
from training.release.papers.mlbom import mlbom
from training.release.papers.model_card import model_card
from training.release.papers.prov import folder_id, prov
from training.release.papers.sources import Share
from training.release.papers.statement import Statement
from training.release.papers.write import PAPERS

# Figures that stand in the papers by themselves: nothing, few things, and names of sections, laws and standards.
CONSTANTS = {
    *map(str, range(13)), "1.1", "1.2", "1.3", "2.1", "2.2", "2.3", "2.4", "2.5", "2.6", "3.1", "3.2", "3.3",
    "2013", "3111", "2024", "1689", "53", "24", "2025", "9309", "3339", "639", "256", "1.6",
    "402", "451", "8311", "05",  # laws, standards and their days
}  # fmt: skip


def read(folders: dict[str, Path], **settings: Any) -> Facts:
    given = {"name": "small-model", "license": "apache-2.0", "language": None, "statement": Statement(), **settings}
    return read_facts(folders, **given)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="module")
def facts(folders: dict[str, Path]) -> Facts:
    return read(folders)


def test_the_model_card_is_one_that_hugging_face_reads(facts: Facts) -> None:
    content = model_card(facts).decode()
    card = ModelCard(content)
    data = card.data
    assert isinstance(data, ModelCardData)
    assert (data.language, data.license, data.library_name) == (["en"], "apache-2.0", "transformers")
    assert data.datasets == ["small-model-training-text"]
    assert data.eval_results is not None
    found = {result.metric_type: result for result in data.eval_results}
    accuracy = facts.results["tasks"]["heldout"]["acc"]
    assert found["acc"].metric_value == accuracy
    assert (found["acc"].metric_args or {})["low"] == facts.gate["rules"][0]["low"]
    assert found["bits"].metric_args is None
    assert yaml.safe_load(content.split("---")[1])["model-index"][0]["name"] == "small-model"
    assert "TAKEDOWN.md" in card.text.strip().splitlines()[2]


def test_croissant_is_valid_and_reads_the_documents(facts: Facts, folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["mix"], tmp_path / "mix")
    path = tmp_path / "mix" / "croissant.json"
    path.write_bytes(croissant(facts))
    dataset = mlcroissant.Dataset(path)  # raises on errors
    assert not dataset.metadata.ctx.issues.errors
    assert dataset.metadata.ctx.conforms_to.value == "http://mlcommons.org/croissant/1.1"
    records = list(dataset.records("documents"))
    assert [record["documents/doc_id"] for record in records] == [b"a", b"b", b"c"]
    assert records[1]["documents/text"] == b"b" * 9
    described = {file.content_url: file.sha256 for file in dataset.metadata.distribution if hasattr(file, "sha256")}
    assert described == {shard.name: shard.sha256 for shard in facts.shards}
    assert len(described) == 2


def test_the_bill_of_materials_is_valid_cyclonedx_and_has_every_pinned_library(facts: Facts) -> None:
    found = mlbom(facts)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(found.decode()) is None
    bill = json.loads(found)
    assert bill["specVersion"] == "1.6"
    libraries = {part["name"]: part["version"] for part in bill["components"] if part["type"] == "library"}
    assert libraries == read_libraries()
    assert libraries["torch"] in (ROOT / "constraints.txt").read_text()
    refs = [part["bom-ref"] for part in bill["components"]]
    assert len(set(refs)) == len(refs)
    known = {*refs, "model"}
    assert all({entry["ref"], *entry["dependsOn"]} <= known for entry in bill["dependencies"])
    text = next(part for part in bill["components"] if part["bom-ref"] == "data:mix")
    assert text["hashes"] == [{"alg": "SHA-256", "content": facts.hashes["mix"]}]


def test_provenance_leads_from_the_release_to_the_crawl_and_on_to_its_source(facts: Facts) -> None:
    graph = rdflib.Graph().parse(data=prov(facts), format="json-ld")
    release, crawl = f"urn:uuid:{facts.serial}", folder_id(facts, "crawl")
    prefix = "PREFIX prov: <http://www.w3.org/ns/prov#> "
    for path in ("prov:wasDerivedFrom+", "(prov:wasGeneratedBy/prov:used)+"):
        assert graph.query(f"{prefix} ASK {{ <{release}> {path} <{crawl}> }}").askAnswer, path
        assert not graph.query(f"{prefix} ASK {{ <{crawl}> {path} <{release}> }}").askAnswer, path
    asked = f"{prefix} ASK {{ <{release}> prov:wasDerivedFrom+ <urn:headwater:source:sha256:{'0' * 64}> }}"
    assert graph.query(asked).askAnswer
    # Step by step too: the training text is derived from the crawl, and not the other way.
    weights = "urn:headwater:weights:tensors:w1"
    for part in (weights, *(folder_id(facts, stage) for stage in ("gate", "mix", "extract"))):
        for path in ("prov:wasDerivedFrom+", "(prov:wasGeneratedBy/prov:used)+"):
            assert graph.query(f"{prefix} ASK {{ <{part}> {path} <{crawl}> }}").askAnswer, (part, path)
    assert not graph.query(f"{prefix} ASK {{ <{folder_id(facts, 'mix')}> prov:wasDerivedFrom+ <{weights}> }}").askAnswer
    agents = graph.query(f"{prefix} SELECT ?a WHERE {{ <{release}> prov:wasAttributedTo ?a . ?a a prov:Agent }}")
    assert len(agents) == 1


def test_every_summary_of_the_eu_template_says_the_same_in_both_forms(facts: Facts) -> None:
    sections = summary(facts)
    titles = [section.number for section in sections]
    assert titles == [
        "1", "1.1", "1.2", "1.3", "2", "2.1", "2.2", "2.2.1", "2.2.2", "2.3", "2.4", "2.5", "2.6",
        "3", "3.1", "3.2", "3.3",
    ]  # fmt: skip
    page = eu_summary_markdown(facts).decode()
    machine = json.loads(PAPERS["eu_ai_act_summary.json"](facts))
    assert [section["number"] for section in machine["sections"]] == titles
    for section in machine["sections"]:
        assert re.search(rf"^##+ {re.escape(section['number'] + ' ' + section['title'])}$", page, re.M)
        for item in section["items"]:
            assert item["asks"] in page
            assert item["answer"] in page
            for row in item["rows"]:
                assert " | ".join(f"{cell:,}" if isinstance(cell, int) else cell for cell in row) in page


def test_the_summary_names_crawler_period_domains_and_what_was_reserved(facts: Facts) -> None:
    page = eu_summary_markdown(facts).decode()
    assert "Testbot, contact a@b.example" in page
    assert f"{DAYS[0]} to {DAYS[1]}" in page
    assert "1 of 2 registered domains (top 10 %)" in page
    assert "| one.example | 2 |" in page
    robots, gone = facts.dropped("crawl")["robots"], facts.dropped("extract")["opt_out"]
    assert f"{robots:,} URLs not fetched for robots.txt, {gone:,} fetched pages dropped" in page
    assert f"{facts.dropped('extract')['takedown']:,} documents left out because of a takedown" in page


def test_the_summary_names_the_template_in_force_and_when_it_is_due_again(facts: Facts) -> None:
    page = eu_summary_markdown(facts).decode()
    assert "C(2025) 8311 final of 5 December 2025" in page
    assert "every six months" in page
    machine = json.loads(PAPERS["eu_ai_act_summary.json"](facts))
    assert machine["template"] == {"reference": "C(2025) 8311 final", "date": "2025-12-05"}
    assert machine["sections"][0]["items"][0]["answer"].startswith("C(2025) 8311 final")


def test_terms_and_prices_are_reservations_and_no_licences(facts: Facts) -> None:
    crawl = facts.manifests["crawl"]
    counts = crawl.counts.model_copy(update={"dropped": {"payment_required": 41_017, "legal_reasons": 41_019}})
    terms = Share(name="robots.txt:rsl", documents=2, bytes=2, tokens=2)
    sources = replace(facts.sources, opt_outs=(terms,), licenses=())
    changed = replace(
        facts, sources=sources, manifests={**facts.manifests, "crawl": crawl.model_copy(update={"counts": counts})}
    )
    for name in ("data_card.md", "eu_ai_act_summary.md"):
        page = PAPERS[name](changed).decode()
        assert "41,017 URLs withheld until paid for (402), 41,019 by law (451)" in page
    card = PAPERS["data_card.md"](changed).decode()
    before, _, reserved = card.partition("## Reservations of rights (opt-outs)")
    assert "| robots.txt:rsl | 2 |" in reserved
    assert "rsl" not in before


def test_small_enterprises_may_name_fewer_domains() -> None:
    domains = [Share(name=f"{n}.example", documents=1, bytes=n, tokens=1) for n in range(30_000)]
    assert len(top_domains(domains, sme=False)) == 3_000
    assert len(top_domains(domains, sme=True)) == 1_000
    assert len(top_domains(domains[:100], sme=True)) == 5
    assert top_domains(domains, sme=True)[0].name == "29999.example"


@pytest.mark.parametrize("name", sorted(PAPERS))
def test_no_figure_of_a_paper_is_typed_by_hand(facts: Facts, tmp_path: Path, name: str) -> None:
    """Of two chains with no figure in common, the papers share names of laws, small counts and nothing else."""
    params = {**PARAMS, "crawl": {**PARAMS["crawl"], "delay_seconds": 77.5}}
    other = read(make_chain(tmp_path / "other", 5_000_011, params), statement=Statement(sme=True))
    here, there = (_figures(PAPERS[name](one)) for one in (facts, other))
    sizes = {str(shard.bytes) for manifest in facts.manifests.values() for shard in manifest.shards}
    assert here - CONSTANTS
    assert here & there <= CONSTANTS | sizes


NO_FIGURES = (
    r'"type": "library".*?}',  # pinned versions, which the two have in common
    r"\b[0-9a-f]{64}\b|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",  # hashes and names made of them
    r"https?://\S+|[\d-]{10}T[\d:]{8}Z|apache-2\.0|pkg:\S+|part-\d+",
    r"[\d.]+ %",  # shares may well be equal
    r"(?<=\d),(?=\d{3})",
)


def _figures(paper: bytes) -> set[str]:
    text = paper.decode()
    for pattern in NO_FIGURES:
        text = re.sub(pattern, "", text, flags=re.S)
    return set(re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?!\w)", text))


def test_a_changed_count_changes_the_papers_that_speak_of_it(facts: Facts) -> None:
    for stage in ("crawl", "extract", "filter", "dedup", "mix", "train"):
        manifest = facts.manifests[stage]
        counts = manifest.counts.model_copy(update={"out": 123_456_789})
        changed = replace(facts, manifests={**facts.manifests, stage: manifest.model_copy(update={"counts": counts})})
        assert b"123,456,789" not in PAPERS["data_card.md"](facts)
        assert b"123,456,789" in PAPERS["data_card.md"](changed), stage
        assert b"123456789" in PAPERS["prov.jsonld"](changed), stage


def test_what_was_masked_or_marked_is_counted_from_the_ledgers(facts: Facts, tmp_path: Path) -> None:
    assert facts.edits.changed == {"filter": {"pii": 1}}
    assert facts.edits.marked == {"extract": {"opt_out": 1}}
    assert facts.edits.opt_outs == {"meta:noai": 1}
    emails = facts.edits.masked["pii"]["email"]
    assert emails > 10_007  # a figure of the chain, not the number of documents
    assert f"email: {emails:,}." in PAPERS["data_card.md"](facts).decode()
    rows = [LedgerRow(stage="filter", action="edit", rule="pii", detail=f"email: {n}, ip: 7") for n in (2, 3)]
    for part, row in enumerate(rows):
        write_ledger(tmp_path / "dropped" / f"part-{part:05d}.parquet", [row])
    more = read_edits({"filter": tmp_path})
    assert more.masked == {"pii": {"ip": 14, "email": 5}, "secrets": {}}


def test_what_the_owner_did_not_state_is_marked_and_what_was_stated_is_shown(facts: Facts) -> None:
    asked = set()
    for paper in PAPERS.values():
        asked |= set(re.findall(rb"MISSING: set release\.statement\.(\w+) in params\.yaml", paper(facts)))
    optional = {"given_files", "given_files_details", "data_details", "comments"}
    assert {name.decode() for name in asked} == set(Statement.model_fields) - optional
    values: dict[str, Any] = {}
    for name, field in Statement.model_fields.items():
        kind = str(field.annotation)
        values[name] = True if "bool" in kind else "2031-05-07" if "_day" in kind else f"said {name}"
    stated = replace(facts, statement=Statement(**values | {"given_files": "public"}))
    everything = b"".join(paper(stated) for paper in PAPERS.values())
    assert b"MISSING: set" not in everything
    for name, value in values.items():
        if isinstance(value, str) and not name.startswith("given_files"):
            assert value.encode() in everything, name
    assert b"2031-05-07" in everything


def test_a_day_is_text_since_dvc_takes_no_dates() -> None:
    for wrong in ("2026-13-01", "soon", date(2026, 1, 31)):
        with pytest.raises(ValidationError):
            Statement.model_validate({"placed_on_market": wrong})


def test_given_files_stand_where_the_owner_says_they_belong(facts: Facts) -> None:
    given = replace(facts, crawl={"source": "warc", "sources": [{"name": "x.warc.gz", "sha256": "0" * 64}]})
    assert b"MISSING: set release.statement.given_files in" in eu_summary_markdown(given)
    for kind, number in (("public", "2.1"), ("licensed", "2.2.1"), ("third_party", "2.2.2")):
        stated = replace(given, statement=Statement.model_validate({"given_files": kind}))
        holding = [s.number for s in summary(stated) if any(("x.warc.gz", "0" * 64) in item.rows for item in s.items)]
        assert holding == [number]


def test_common_crawl_is_a_public_dataset(facts: Facts) -> None:
    manifest = facts.manifests["crawl"].model_copy(update={"params": {"snapshot": "CC-MAIN-2024-22"}})
    given = replace(
        facts, crawl={"source": "common_crawl", "sources": []}, manifests={**facts.manifests, "crawl": manifest}
    )
    section = next(section for section in summary(given) if section.number == "2.1")
    assert any("CC-MAIN-2024-22" in item.answer for item in section.items)


def test_no_paper_says_that_all_text_was_trained_on_where_steps_ended_before(facts: Facts) -> None:
    assert facts.training["tokens_seen"] != facts.sources.total.tokens
    documents = f"{facts.sources.total.documents:,} documents"
    for name, paper in PAPERS.items():
        said = paper(facts).decode()
        assert not re.search(rf"{documents} (?:are|were) trained on|trained on:? {documents}", said), name
    assert f"the model was trained on {facts.training['tokens_seen']:,} |" in PAPERS["ab2013.md"](facts).decode()


def test_the_approver_and_the_champion_are_shown_if_the_report_names_them(facts: Facts) -> None:
    assert b"No person's approval is on it." in model_card(facts)
    champion = {"name": "older-model", "release": "r" * 64}
    approved = replace(facts, gate={**facts.gate, "approver": "Ada", "champion": champion})
    assert b"Approved by Ada." in model_card(approved)
    assert b"older-model" in model_card(approved)


def test_a_hostile_page_cannot_write_into_the_papers(facts: Facts) -> None:
    evil = Share(name="x|y ![p](http://evil.example/p) <script>alert()</script>\n# No", documents=1, bytes=1, tokens=1)
    sources = replace(facts.sources, licenses=(evil,), opt_outs=(evil,), hosts=(evil, *facts.sources.hosts))
    for name in ("data_card.md", "ab2013.md", "README.md", "eu_ai_act_summary.md"):
        page = PAPERS[name](replace(facts, sources=sources)).decode()
        page = re.sub(r"\A---\n.*?\n---\n", "", page, flags=re.S)
        html = MarkdownIt("commonmark", {"html": True}).enable("table").render(page)
        assert "<script" not in html
        assert "<img" not in html
        assert "<h1>No" not in html
        rows = [row.count("<td") for row in re.findall(r"<tr>(.*?)</tr>", html, re.S) if "evil.example" in row]
        assert set(rows) <= {5, 3}, name


def test_the_same_chain_gives_the_same_bytes_wherever_it_stands(facts: Facts, tmp_path: Path) -> None:
    again = read(make_chain(tmp_path / "elsewhere"))
    for name, paper in PAPERS.items():
        assert paper(again) == paper(facts), name
    assert again.serial == facts.serial
    assert read(make_chain(tmp_path / "other", 20_011)).serial != facts.serial


def test_an_index_that_is_not_of_the_documents_is_no_basis_for_papers(tmp_path: Path) -> None:
    folders = make_chain(tmp_path / "swapped")
    index = folders["tokenize"] / "part-00000.parquet"
    shutil.copyfile(folders["tokenize"] / "part-00001.parquet", index)
    with pytest.raises(InputError, match=r"2 documents without tokens, tokens of 1 other"):
        read(folders)
    folders = make_chain(tmp_path / "short")
    write_json(folders["tokenize"] / "tokens.json", {"tokens": 7})
    with pytest.raises(InputError, match=r"7 tokens, as in tokens\.json"):
        read(folders)
    folders = make_chain(tmp_path / "lacking")
    (folders["mix"] / "mixture.json").unlink()
    with pytest.raises(InputError, match=r"mixture\.json(.|\n)*--force mix"):
        read(folders)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"layers": 2}, ("Llama: RoPE, SwiGLU, RMSNorm", "standard deviation 0.02; norms 1 |")),
        ({"qk_norm": True}, ("grouped-query attention, QK-norm (Touvron",)),
        ({"residual_projections": "zero"}, ("those into the residual stream 0; norms 1",)),
        ({"family": "gpt2", "heads": 6}, ("GPT-2: learned positions", "divided by √(2 × layers); norms 1, biases 0")),
        ({"family": "of-another-version"}, ()),
    ],
    ids=str,
)
def test_the_card_says_what_the_family_says_of_itself(facts: Facts, model: Any, said: tuple[str, ...]) -> None:
    trained = facts.manifests["train"]
    trained = trained.model_copy(update={"params": {**trained.params, "model": model}})
    card = model_card(replace(facts, manifests={**facts.manifests, "train": trained})).decode()
    for part in said:
        assert part in card
    assert ("| architecture |" in card) is bool(said)

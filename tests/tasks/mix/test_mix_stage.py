"""mix: what is not sampled is in the ledger, what is kept says how often it trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.document import Document, read_documents
from tasks.contracts.errors import CorpusTooSmallError
from tasks.contracts.ledger import read_ledger
from tasks.contracts.manifest import Manifest, text_shards
from tasks.mix.stage import Params, run
from tests.corpus import corpus, write_stage


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_STATE", str(tmp_path / "state"))


def mix(params: Params, output: str = "out") -> Manifest:
    return run(params=params, inputs={"decontaminate": Path("in")}, output=Path(output))


def documents(folder: str = "out") -> list[Document]:
    return [d for shard in text_shards(Path(folder)) for d in read_documents(Path(folder) / shard.name)]


def two_hosts() -> None:
    few, many = corpus(10, host="few.example"), corpus(90, host="many.example", source="other")
    write_stage(Path("in"), [*few, *many])


GROUPS = ({"name": "few", "hosts": ["few.*"], "weight": 1, "max_epochs": 3}, {"name": "many", "sources": ["other"]})


def test_without_groups_everything_goes_in_once() -> None:
    two_hosts()
    manifest = mix(Params())
    assert manifest.counts.out == 100
    assert manifest.counts.dropped == {}
    assert {d.scores["mix.epochs"] for d in documents()} == {1.0}


def test_kept_documents_say_their_epochs_and_the_others_are_in_the_ledger() -> None:
    two_hosts()
    manifest = mix(Params(groups=GROUPS, total_bytes=60_000))
    few = [d for d in documents() if d.host == "few.example"]
    many = [d for d in documents() if d.host == "many.example"]
    assert {d.scores["mix.epochs"] for d in few} <= {1.0, 2.0, 3.0}
    assert sum(d.scores["mix.epochs"] for d in few) > len(few)
    rows = [row for path in sorted(Path("out/dropped").glob("*")) for row in read_ledger(path)]
    assert {row.rule for row in rows} == {"not_sampled"}
    assert len(rows) == 90 - len(many) == manifest.counts.dropped["not_sampled"] > 0


def test_mixture_json_says_what_was_asked_and_what_came_out() -> None:
    two_hosts()
    mix(Params(groups=GROUPS))
    mixture = json.loads(Path("out/mixture.json").read_text())
    by_name = {group["name"]: group for group in mixture["groups"]}
    assert by_name["few"]["epochs"] == 3.0
    assert by_name["few"]["asked_share"] == 0.5
    assert by_name["few"]["resulting_bytes"] == 3 * by_name["few"]["available_bytes"]
    assert by_name["rest"]["available_documents"] == 0
    written = sum(int(d.scores["mix.epochs"]) * len(d.text.encode()) for d in documents())
    assert mixture["resulting_bytes"] == written == sum(g["resulting_bytes"] for g in mixture["groups"])


def test_a_token_budget_is_met_about_and_what_is_missing_is_explained() -> None:
    two_hosts()
    mix(Params(groups=GROUPS, total_tokens=50_000, bytes_per_token=3))
    mixture = json.loads(Path("out/mixture.json").read_text())
    assert mixture["asked_bytes"] == 150_000
    assert mixture["resulting_tokens_estimated"] == pytest.approx(50_000, rel=0.15)
    assert mixture["why"] == ""
    by_name = {group["name"]: group for group in mixture["groups"]}
    assert by_name["few"]["why"] == "max_epochs reached"
    assert by_name["many"]["why"] == "takes over what other groups could not give"
    mix(Params(groups=GROUPS, total_tokens=10**9), output="all")
    mixture = json.loads(Path("all/mixture.json").read_text())
    assert mixture["why"] == "every group has reached its limit"
    with pytest.raises(ValueError, match="give one"):
        Params(total_tokens=1, total_bytes=1)


def test_sampling_does_not_depend_on_the_shards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    two_hosts()
    mix(Params(groups=GROUPS, total_bytes=60_000))
    everything = [d for shard in text_shards(Path("in")) for d in read_documents(Path("in") / shard.name)]
    write_stage(Path("in"), [everything])
    Path("in/part-00001.parquet").unlink(missing_ok=True)
    write_stage(tmp_path / "one", [everything])
    run(
        params=Params(groups=GROUPS, total_bytes=60_000),
        inputs={"decontaminate": tmp_path / "one"},
        output=Path("out2"),
    )
    assert {d.doc_id: d.scores for d in documents()} == {d.doc_id: d.scores for d in documents("out2")}


def test_an_empty_mixture_is_an_error() -> None:
    two_hosts()
    with pytest.raises(CorpusTooSmallError, match="mixture is empty"):
        mix(Params(groups=({"name": "rest", "weight": 0},)))


@pytest.mark.parametrize(
    "groups", [[{"name": "a"}, {"name": "a"}], [{"name": "rest", "hosts": ["x"]}], [{"name": "a", "wieght": 1}]]
)
def test_groups_that_cannot_be_meant_are_refused(groups: Any) -> None:
    with pytest.raises(ValueError, match=r"same name|no conditions|wieght"):
        Params(groups=groups)

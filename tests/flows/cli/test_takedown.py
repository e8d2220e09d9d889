import hashlib
import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.takedown import app
from flows.history.marks import is_release, mark_release, restore_mark, takedown_note
from flows.history.output_filter import make_filter, read_filter, withheld_by
from flows.history.releases import held_out_file, known_releases, remember_release
from flows.history.run_records import now, write_record
from flows.proof.affected import find_affected
from tasks.contracts.document import Document, write_documents
from tasks.contracts.durable_files import write_bytes, write_json
from tasks.contracts.errors import InputError, UsageError
from tasks.contracts.ledger import LedgerRow, write_ledger
from tasks.contracts.manifest import MANIFEST_NAME, Counts, manifest_hash, read_manifest
from tasks.rights.takedowns import read_fingerprints, read_takedowns
from tests.conftest import ROOT
from tests.planted import plant_manifest
from training.champions import promote

TEXT = " ".join(f"word{number}" for number in range(60))


@pytest.fixture(autouse=True)
def empty_workspace(workspace: Path) -> Path:
    (workspace / "params.yaml").write_text("dedup: {threshold: 0.8}\n")
    shutil.copy(ROOT / "dvc.yaml", workspace)
    return workspace


def page(number: int, text: str, payload: str | None = None) -> Document:
    return Document(
        doc_id=hashlib.sha256(str(number).encode()).hexdigest()[:32],
        url=f"https://a{number}.example/page",
        host=f"a{number}.example",
        record_id=str(number),
        source="test",
        text=text,
        payload_digest=payload,
    )


def make_stage(name: str, documents: list[Document], inputs: dict[str, Path] | None = None) -> Path:
    folder = Path("data") / name
    write_documents(folder / "part-00000.parquet", documents)
    count = len(documents)
    counts = Counts(in_=count, out=count)
    plant_manifest(folder, stage=name, unit="documents", params={}, inputs=inputs or {}, counts=counts)
    return folder


def make_data(held_out: list[Document] | None = None) -> tuple[list[Document], Path]:
    documents = [page(1, TEXT, "sha1:A"), page(2, TEXT.upper()), page(3, TEXT + " and more"), page(4, "Other text.")]
    write_ledger(
        Path("data/crawl/dropped/part-00000.parquet"),
        [
            LedgerRow(
                stage="crawl", action="drop", rule="revisit", url="https://r.example/", survivor_id=documents[3].doc_id
            )
        ],
    )
    before = Path("data/crawl")
    plant_manifest(before, stage="crawl", unit="urls", params={}, inputs={}, counts=Counts(in_=4, out=4))
    inputs = {"crawl": before}
    for stage in ("extract", "filter", "dedup", "mix"):
        listed = documents if stage == "mix" else [*documents, *(held_out or ())]
        inputs[stage] = before = make_stage(stage, listed, {before.name: before})
    write_json(Path("data/release/lineage.json"), {"name": "only", "weights_sha256": "w"})
    release = Path("data/release")
    counts = Counts(in_=1, out=1)
    plant_manifest(release, stage="release", unit="files", params={}, inputs=inputs, counts=counts)
    for stage, folder in inputs.items():
        write_bytes(release / "manifests" / f"{stage}.json", (folder / MANIFEST_NAME).read_bytes())
    promote(release)
    remember_release(release, inputs["mix"], inputs)
    for stage, folder in {**inputs, "release": release}.items():
        write_record(run="r1", stage=stage, started_at=now(), output=folder)
    return documents, release


def call(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == code, result.output or result.exception
    assert result.exception is None or isinstance(result.exception, (SystemExit, InputError)), result.exception
    return json.loads(result.stdout)


def covering() -> str:
    """Return the id of the only tombstone."""
    (row,) = read_takedowns().tombstones
    return row.id


def test_what_many_other_documents_say_may_still_be_said(workspace: Path) -> None:
    licence = " ".join(f"term{number}" for number in range(30))
    others = [page(10 + number, f"{licence} {' '.join(f'w{number}x{k}' for k in range(60))}") for number in range(11)]
    taken = page(5, f"{licence} {' '.join(f'own{number}' for number in range(60))}")
    make_data([taken, *others])
    call("add", taken.url, "--reason", "asked")
    call("apply")
    filter_ = make_filter(read_fingerprints(), [covering()], find_affected(read_takedowns()).common)
    assert withheld_by(read_filter({"filter": filter_}), licence) == (licence, None)
    left, tombstone = withheld_by(read_filter({"filter": filter_}), taken.text)
    assert tombstone == covering()
    assert left in licence + " "


def test_adding_twice_is_one_tombstone_and_withdrawing_ends_it() -> None:
    first = call("add", "https://a1.example/page", "--reason", "asked", "--date", "2026-01-31")
    again = call("add", "http://A1.example/page/", "--reason", "asked again")
    assert (first["new"], again["new"], again["id"]) == (True, False, first["id"])
    call("add", "--withdraw", str(first["id"]), "--reason", "a mistake")
    assert not read_takedowns()
    assert call("add", "https://a1.example/page", "--reason", "no mistake", "--date", "2026-01-31")["new"]
    assert len(read_takedowns().tombstones) == 1


@pytest.mark.parametrize("arguments", [["not a host", "--reason", "r"], ["a.example"], ["--reason", "r"]])
def test_wrong_use_is_refused(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["add", *arguments])
    assert isinstance(result.exception, UsageError)


def test_apply_covers_copies_and_marks_the_release_once(workspace: Path) -> None:
    documents, release = make_data()
    before = manifest_hash(release)
    call("add", "https://a1.example/page", "--reason", "asked")
    applied = call("apply")
    covered = {one["doc_id"]: one["by"] for one in applied["documents"]}
    assert covered == {documents[0].doc_id: "address", documents[1].doc_id: "text", documents[2].doc_id: "near"}
    assert {one.doc_id for one in read_fingerprints()} == {documents[0].doc_id, documents[1].doc_id}
    assert TEXT.split()[0] not in Path("infra/takedowns.fingerprints.jsonl").read_text()
    (known,) = known_releases()
    assert known.takedown is not None
    assert (release / "TAKEDOWN.md").read_bytes() == (known.folder / "TAKEDOWN.md").read_bytes()
    assert manifest_hash(release) == before
    again = call("apply")
    assert (again["fingerprints_stored"], again["folders_marked"]) == (0, 0)
    filter_ = read_filter(known.takedown)
    said = " ".join(TEXT.upper().split()[10:40])
    assert withheld_by(filter_, f"It says: {said}, and so on.") == ("It says: ", covering())
    assert withheld_by(filter_, "Other text.") == ("Other text.", None)
    (release / "TAKEDOWN.md").unlink()
    restore_mark(release)
    assert (release / "TAKEDOWN.md").is_file()


@pytest.mark.parametrize("noted", ["yes", "no", "no, and the kept copy is gone"])
@pytest.mark.parametrize("data", ["here", "gone"])
def test_a_text_that_a_release_holds_only_to_be_scored_on_is_found(noted: str, data: str) -> None:
    item, choice = page(5, "A text held out of training."), page(6, "Another one, of which a choice was made.")
    row = {"doc_id": item.doc_id, "text": item.text, "choice_doc_ids": [item.doc_id, choice.doc_id]}
    write_bytes(Path("data/release/tasks/held.jsonl"), json.dumps(row).encode())
    _, release = make_data([item, choice])
    (known,) = known_releases()
    if data == "gone":
        for stage in ("crawl", "extract", "filter", "dedup", "mix"):
            shutil.rmtree(Path("data") / stage)
    if noted != "yes":
        held_out_file(known.manifest_sha256).unlink()
    call("add", item.url, "--reason", "asked")
    call("add", choice.host, "--reason", "asked")
    if noted == "no, and the kept copy is gone":
        shutil.rmtree(known.folder)
        shutil.rmtree(release)
        assert "which held-out texts it holds was not noted" in " ".join(call("plan", code=1)["unreachable"])
        return
    (told,) = call("plan", code=1)["releases"]
    assert (told["documents"], told["held_out"]) == (2, 2)
    call("apply")
    (known,) = known_releases()
    assert known.takedown is not None
    assert "| 0 | 1 |" in (known.folder / "TAKEDOWN.md").read_text()
    assert "2 of them held out of training" in takedown_note(known.takedown)


def test_a_page_that_the_crawl_stored_under_another_address_is_found() -> None:
    documents, _ = make_data()
    call("add", "https://r.example/", "--reason", "asked")
    (one,) = call("apply")["documents"]
    assert (one["doc_id"], one["by"]) == (documents[3].doc_id, "revisit")


def test_a_text_is_taken_down_by_a_file(workspace: Path) -> None:
    documents, _ = make_data()
    (workspace / "letter.txt").write_text(TEXT)
    call("add", "--file", "letter.txt", "--reason", "asked")
    found = {one["doc_id"] for one in call("apply")["documents"]}
    assert found == {one.doc_id for one in documents[:3]}


# What a stopped run, `headwater gc`, `dvc gc` or a person may have taken away.
LOSABLE = (
    *("data/crawl", "data/extract", "data/filter", "data/dedup", "data/mix", "data/release"),
    *("data/extract/part-00000.parquet", "data/crawl/dropped"),
    *(".headwater/champions.jsonl", ".headwater/releases", ".headwater/runs", ".headwater/lineage"),
)
TOLD = ("documents", "releases")


def lose(*names: str) -> None:
    for name in names:
        shutil.rmtree(name, ignore_errors=True)
        Path(name).unlink(missing_ok=True)


@pytest.mark.parametrize("lost", [*itertools.combinations(LOSABLE, 1), *itertools.combinations(LOSABLE, 2)], ids=str)
@pytest.mark.parametrize("address", ["https://a1.example/page", "https://r.example/"])
def test_what_is_missing_is_not_taken_for_empty(address: str, lost: tuple[str, ...]) -> None:
    make_data()
    call("add", address, "--reason", "asked")
    whole = call("plan", code=1)
    lose(*lost)
    answer = call("plan", code=1)
    assert whole["complete"]
    if answer["complete"]:
        assert [answer[name] for name in TOLD] == [whole[name] for name in TOLD]
    else:
        assert all(
            any(word in sentence for word in ("data/", "release", "run record")) for sentence in answer["unreachable"]
        )


@pytest.mark.parametrize("command", ["plan", "apply"])
def test_with_no_data_left_the_list_of_the_release_answers_for_addresses(command: str, workspace: Path) -> None:
    make_data()
    call("add", "https://a1.example/page", "--reason", "asked")
    lose(*(f"data/{stage}" for stage in ("crawl", "extract", "filter", "dedup", "mix")))
    answer = call(command, code=1 if command == "plan" else 0)
    assert answer["complete"]
    assert [one["documents"] for one in answer["releases"]] == [2], "by its address, and by the text that is the same"
    (workspace / "letter.txt").write_text(TEXT + " and something that makes it another one")
    call("add", "--file", "letter.txt", "--reason", "asked")
    assert not call(command, code=1)["complete"], "a text that may be near to some is not found in a list of names"


def test_a_release_that_nothing_is_left_of_but_a_run_record_is_asked_for(workspace: Path) -> None:
    make_data()
    call("add", "https://a1.example/page", "--reason", "asked")
    lose("data", ".headwater/champions.jsonl", ".headwater/releases", ".headwater/lineage")
    result = CliRunner().invoke(app, ["apply"])
    assert isinstance(result.exception, InputError)
    assert "which documents it holds was not noted" in str(result.exception)
    assert "dvc pull" in str(result.exception)


def test_the_texts_that_a_stopped_run_took_from_data_are_read_from_the_shard_cache() -> None:
    make_data()
    call("add", "https://a1.example/page", "--reason", "asked")
    whole = call("plan", code=1)
    for stage in ("extract", "filter"):
        folder = Path(".headwater/shards") / stage
        shutil.move(Path("data") / stage / "part-00000.parquet", write_entry(folder, stage))
        lose(f"data/{stage}")
    answer = call("plan", code=1)
    assert [answer[name] for name in TOLD] == [whole[name] for name in TOLD]
    assert answer["complete"]
    assert answer["read_elsewhere"] == ["extract", "filter"]
    for entry in Path(".headwater/shards").iterdir():
        (entry / "part-00000.parquet").write_bytes(b"x")
    assert not call("plan", code=1)["complete"], "a damaged file in the cache is not what was asked for"


def write_entry(folder: Path, stage: str) -> Path:
    shard = read_manifest(Path("data") / stage).shard("part-00000.parquet")
    write_json(folder / "_shard.json", {"files": [shard.model_dump()]})
    return folder / "part-00000.parquet"


def test_what_dvc_lock_lists_and_is_nowhere_is_named(workspace: Path) -> None:
    call("add", "https://a1.example/page", "--reason", "asked")
    assert call("plan")["complete"], "nothing was ever made here"
    outs = [{"path": "data/extract", "md5": "0" * 32 + ".dir"}]
    (workspace / "dvc.lock").write_text(json.dumps({"stages": {"extract": {"outs": outs}}}))
    (sentence,) = call("plan", code=1)["unreachable"]
    assert "data/extract" in sentence
    (workspace / "dvc.lock").write_text("<<<<<<< ours")
    (sentence,) = call("plan", code=1)["unreachable"]
    assert "dvc.lock" in sentence


def test_a_release_whose_kept_copy_is_gone_cannot_be_marked_and_gets_no_half_folder() -> None:
    make_data()
    call("add", "https://a1.example/page", "--reason", "asked")
    lose(".headwater/releases")
    answer = call("apply", code=1)
    assert "cannot be marked" in answer["unreachable"][-1]
    assert not Path(".headwater/releases").exists()
    assert Path("data/release/TAKEDOWN.md").is_file()


def test_marks_add_up(workspace: Path) -> None:
    facts: dict[str, Any] = {"kind": "url", "date": "2026-01-31", "documents": 1}
    folder = workspace / "release"
    assert mark_release(folder, "m", {"a": facts})
    assert mark_release(folder, "m", {"b": facts})
    assert not mark_release(folder, "m", {"a": facts})
    assert "`a`" in (folder / "TAKEDOWN.md").read_text()
    assert not is_release(folder, "m")
    many = {f"{number:04x}": facts for number in range(7)}
    assert takedown_note({"tombstones": many}).endswith("0003, 0004 and 2 more")


def test_with_nothing_taken_down_no_counts_are_made_up() -> None:
    make_data()
    told = CliRunner().invoke(app, ["plan"])
    assert (told.exit_code, told.output) == (0, "nothing is taken down\n")

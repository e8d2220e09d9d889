import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.lineage.marks import is_release, mark_release, restore_mark, takedown_note
from flows.lineage.releases import known_releases, remember_release
from flows.takedown import app
from tasks.contracts.document import Document, write_documents
from tasks.contracts.errors import UsageError
from tasks.contracts.files import write_json
from tasks.contracts.ledger import LedgerRow, write_ledger
from tasks.contracts.manifest import Counts, manifest_hash
from tasks.contracts.takedowns import read_fingerprints, read_takedowns
from tests.planted import plant_manifest
from training.champion import promote

TEXT = " ".join(f"word{number}" for number in range(60))


@pytest.fixture(autouse=True)
def empty_workspace(workspace: Path) -> Path:
    (workspace / "params.yaml").write_text("dedup: {threshold: 0.8}\n")
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


def make_data() -> tuple[list[Document], Path]:
    documents = [page(1, TEXT, "sha1:A"), page(2, TEXT.upper()), page(3, TEXT + " and more"), page(4, "Other text.")]
    for stage in ("extract", "filter", "dedup"):
        make_stage(stage, documents)
    mix = make_stage("mix", documents)
    write_ledger(
        Path("data/crawl/dropped/part-00000.parquet"),
        [
            LedgerRow(
                stage="crawl", action="drop", rule="revisit", url="https://r.example/", survivor_id=documents[3].doc_id
            )
        ],
    )
    write_json(Path("data/release/lineage.json"), {"name": "only", "weights_sha256": "w"})
    release = Path("data/release")
    counts = Counts(in_=1, out=1)
    plant_manifest(release, stage="release", unit="files", params={}, inputs={"mix": mix}, counts=counts)
    promote(release)
    remember_release(release, mix)
    return documents, release


def call(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == code, result.output or result.exception
    return json.loads(result.stdout)


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
    (release / "TAKEDOWN.md").unlink()
    restore_mark(release)
    assert (release / "TAKEDOWN.md").is_file()


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

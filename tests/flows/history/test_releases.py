import hashlib
from pathlib import Path

import pytest

from flows.history.releases import holders, known_releases, missing_lists, read_names, remember_release
from tasks.contracts.base_release import BASE_FOLDER, copy_lineage
from tasks.contracts.document import Document, write_documents
from tasks.contracts.durable_files import write_json
from tasks.contracts.errors import InputError, ManifestError
from tasks.contracts.manifest import Counts, manifest_hash
from tests.planted import plant_manifest
from training.champions import promote


def doc_id(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


def make_mix(folder: Path, numbers: range) -> Path:
    documents = [
        Document(doc_id=doc_id(n), url="u", host="h", record_id="r", source="s", text="Some text.") for n in numbers
    ]
    half = len(documents) // 2
    write_documents(folder / "part-00000.parquet", documents[:half])
    write_documents(folder / "part-00001.parquet", documents[half:])
    counts = Counts(in_=len(documents), out=len(documents))
    plant_manifest(folder, stage="mix", unit="documents", params={}, inputs={}, counts=counts)
    return folder


def make_release(folder: Path, mix: Path, name: str) -> Path:
    write_json(folder / "lineage.json", {"name": name, "weights_sha256": f"weights of {name}"})
    counts = Counts(in_=1, out=1)
    plant_manifest(folder, stage="release", unit="files", params={}, inputs={"mix": mix}, counts=counts)
    promote(folder)
    return folder


def test_a_document_leads_to_every_release_that_holds_it(workspace: Path) -> None:
    for name, numbers in (("first", range(60)), ("second", range(30, 90))):
        mix = make_mix(workspace / name / "mix", numbers)
        remember_release(make_release(workspace / name / "release", mix, name), mix)
    asked = [doc_id(number) for number in (0, 29, 30, 59, 60, 89, 90)]
    names = {one: [release.name for release in releases] for one, releases in holders(asked).items()}
    both, first, second = ["first", "second"], ["first"], ["second"]
    assert list(names.values()) == [first, first, both, both, second, second, []]
    assert [known.name for known in known_releases()] == both
    assert known_releases()[0].folder.is_dir()
    assert not missing_lists()


def test_what_a_release_went_on_from_is_held_by_it_too(workspace: Path) -> None:
    first_mix = make_mix(workspace / "first" / "mix", range(60))
    first = make_release(workspace / "first" / "release", first_mix, "first")
    remember_release(first, first_mix)
    second_mix = make_mix(workspace / "second" / "mix", range(50, 90))
    copy_lineage(first, workspace / "second" / "release" / BASE_FOLDER)
    second = make_release(workspace / "second" / "release", second_mix, "second")
    remember_release(second, second_mix)
    asked = [doc_id(number) for number in (0, 55, 89, 90)]
    names = [[release.name for release in releases] for releases in holders(asked).values()]
    assert names == [["first", "second"], ["first", "second"], ["second"], []]
    known = read_names(manifest_hash(second))
    assert known is not None
    assert {row["doc_id"] for row in known} == {doc_id(number) for number in range(90)}


def test_a_base_of_another_workspace_is_said_to_be_unknown(workspace: Path, caplog: pytest.LogCaptureFixture) -> None:
    mix = make_mix(workspace / "mix", range(4))
    elsewhere = make_release(workspace / "elsewhere", mix, "elsewhere")
    copy_lineage(elsewhere, workspace / "release" / BASE_FOLDER)
    remember_release(make_release(workspace / "release", mix, "own"), mix)
    assert "not known in this workspace" in caplog.text


def test_a_release_whose_documents_were_not_noted_is_named(workspace: Path) -> None:
    mix = make_mix(workspace / "mix", range(4))
    release = make_release(workspace / "release", mix, "only")
    assert [known.manifest_sha256 for known in missing_lists()] == [manifest_hash(release)]
    assert holders([doc_id(0)]) == {doc_id(0): ()}
    assert holders([]) == {}


def test_documents_are_noted_from_what_the_release_was_made_from_only(workspace: Path) -> None:
    mix = make_mix(workspace / "mix", range(4))
    release = make_release(workspace / "release", mix, "only")
    with pytest.raises(ManifestError, match="data/mix has changed"):
        remember_release(release, make_mix(workspace / "other", range(6)))


def test_a_mark_is_read_and_a_damaged_one_is_an_error(workspace: Path) -> None:
    mix = make_mix(workspace / "mix", range(4))
    make_release(workspace / "release", mix, "only")
    (known,) = known_releases()
    assert known.takedown is None
    write_json(known.folder / "takedown.json", {"tombstones": []})
    assert known_releases()[0].takedown == {"tombstones": []}
    (known.folder / "takedown.json").write_text("[")
    with pytest.raises(InputError, match="cannot be read"):
        known_releases()

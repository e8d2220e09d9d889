"""`headwater diff`: exit codes, the ways to name a release, and what a person reads first in 80 columns."""

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from flows.cli.main import app
from flows.history.releases import remember_release
from tasks.contracts.durable_files import write_json
from tasks.contracts.errors import HeadwaterError, InputError, UsageError
from tasks.contracts.manifest import manifest_hash
from tests.flows.proof.two_releases import BITS, PAGES, PARAMS, Plan, make, page

OTHER = Plan(
    pages=(*PAGES[1:], page("long", "two.example", language="fr")),
    params={
        "dedup": {"threshold": 0.7, "hosts": ["docs"]},
        "filter": {"rules": [{"pii": {}}, *PARAMS["filter"]["rules"][1:], {"length": {"min_words": 40}}]},
    },
    dropped={"dedup": {"a_rule_with_a_name_that_leaves_little_room_beside_it_in_a_line": 123_456_789_012}},
    bits=tuple(bits - 0.5 - 0.01 * number for number, bits in enumerate(BITS)),
    release={"name": "second"},
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that made two releases, the second one in data/release."""
    root = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("HEADWATER_STATE", str(root / ".headwater"))
        for name, plan in (("first", Plan()), ("second", OTHER)):
            release = make(root / name, plan)
            remember_release(release, release.parent / "mix")
    shutil.copytree(root / "second" / "data" / "release", root / "data" / "release")
    return root


@pytest.fixture
def folders(built: Path, workspace: Path) -> tuple[Path, Path]:
    """The two releases, in a copy of that workspace."""
    shutil.copytree(built, workspace, dirs_exist_ok=True)
    return workspace / "first" / "data" / "release", workspace / "second" / "data" / "release"


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["diff", *arguments], terminal_width=80)


def value(*arguments: str, code: int = 1) -> Any:
    result = call(*arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def refused(*arguments: str) -> HeadwaterError:
    error = call(*arguments).exception
    assert isinstance(error, HeadwaterError)
    return error


def test_exit_code_0_says_that_nothing_differs_1_that_something_does(folders: tuple[Path, Path]) -> None:
    same = call("data/release", str(folders[1]))
    assert same.exit_code == 0
    assert "Nothing differs" in same.output
    assert len(same.output.splitlines()) < 8
    assert value("data/release", "data/release", code=0)["same"] is True
    assert call("data/release", str(folders[0])).exit_code == 1
    assert call("data/release").exit_code == 2
    (Path("data/release") / "model.sig").write_text("x")
    marked = call("data/release", str(folders[1]))
    assert marked.exit_code == 1
    assert "It is one release" in marked.output
    assert "signed" in marked.output


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def link_to_the_same_bytes(path: Path) -> None:
    path.rename(path.parent.parent / "moved")
    path.symlink_to("../moved")


CHANGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "pipe": ("odd", os.mkfifo, "odd: a pipe"),
    "socket": ("odd", bound_socket, "odd: a socket"),
    "added": ("odd", Path.touch, "odd: added"),
    "folder": ("odd", Path.mkdir, "odd: added"),
    "removed": ("verify.py", Path.unlink, "verify.py: missing"),
    "link": ("verify.py", link_to_the_same_bytes, "verify.py: a link"),
    "other bytes": ("verify.py", lambda path: path.write_bytes(path.read_bytes()[:-1] + b"#"), "verify.py, SHA-256"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_folder_that_is_not_as_its_manifest_says_is_not_the_same(folders: tuple[Path, Path], change: str) -> None:
    name, do, said = CHANGES[change]
    do(Path("data/release") / name)
    result = call(str(folders[1]), "data/release")
    assert result.exit_code == 1
    text = " ".join(result.output.split())
    assert "Nothing differs" not in text
    assert said in text
    assert "headwater verify data/release" in text
    whole, broken = (value(str(folders[1]), "data/release")[side]["broken"] for side in "ab")
    assert not whole
    assert broken
    if change != "other bytes":  # of another release's files those that are compared are hashed
        assert said in " ".join(call(str(folders[0]), "data/release").output.split())


def test_a_release_is_named_by_folder_name_or_the_beginning_of_its_hash(folders: tuple[Path, Path]) -> None:
    hashes = [manifest_hash(folder) for folder in folders]
    for first in (str(folders[0]), "first", hashes[0], hashes[0][:8], hashes[0][:10].upper()):
        found = value(first, "data/release")
        assert [found[side]["manifest_sha256"] for side in "ab"] == hashes
    for wrong in (hashes[0][:7], "third", "0" * 64):
        error = refused(wrong, "data/release")
        assert isinstance(error, UsageError)
        assert f"first ({hashes[0][:12]}), second ({hashes[1][:12]})" in str(error)
    folder = refused("data", "data/release")
    assert "_manifest.json" in str(folder)
    assert folder.exit_code == 2


def test_a_name_of_two_releases_is_refused_with_the_hashes_to_choose_from(
    folders: tuple[Path, Path], workspace: Path
) -> None:
    again = make(workspace / "again", Plan(weights="w2"))
    error = refused("first", "second")
    assert isinstance(error, UsageError)
    for folder in (folders[0], again):
        assert manifest_hash(folder)[:12] in str(error)
    assert manifest_hash(folders[1])[:12] not in str(error)


def test_a_damaged_release_is_exit_code_2_and_no_difference(folders: tuple[Path, Path]) -> None:
    (Path("data/release") / "gate.json").write_text("{}")
    error = refused("first", "data/release")
    assert isinstance(error, InputError)
    assert error.exit_code == 2
    assert "data/release/gate.json" in str(error)
    assert "headwater verify data/release" in str(error)


@pytest.mark.parametrize("content", ["[" * 200_000, '{"stage":' * 200_000, "{}", "[]", "1", ""], ids=lambda c: c[:9])
def test_a_manifest_that_is_none_is_exit_code_2(folders: tuple[Path, Path], content: str) -> None:
    first, second = folders
    (second / "_manifest.json").write_text(content)
    result = call(str(first), str(second))
    assert isinstance(result.exception, InputError), result.exception


def test_what_a_person_wants_to_know_first_is_said_first_in_80_columns(folders: tuple[Path, Path]) -> None:
    result = call("first", "second")
    lines = [line.rstrip() for line in result.output.splitlines()]
    assert all(len(line) <= 80 for line in lines)
    assert lines[0].startswith("A  first")
    assert lines[2].startswith("B  second")
    assert lines[5].startswith("They part at filter: its settings differ")
    assert "Settings differ later in dedup, release too." in lines
    heads = [line.partition(":")[0] for line in lines if line and line.partition(":")[0] in HEADS]
    assert heads == list(HEADS)
    text = " ".join(" ".join(lines).split())
    for said in (
        "bits_per_byte 2.5625 2.0275 -0.5350",
        "B is better",
        "dedup.threshold 0.8 0.7",
        "dedup.hosts – [docs]",
        "length moved",
        "pii added – place 1",
        "max_words 1000 –",
        "documents: 2 in both, 1 only in A, 1 only in B",
        "two.example – 1 document",
        "gone",
        "filter ◄ first settings",
        "+123,456,789,012",
    ):
        assert said in text, said


HEADS = ("Scores", "Settings", "Rules", "Sources", "Counts", "Data")


def test_rows_are_limited_and_all_shows_what_is_the_same_too(folders: tuple[Path, Path]) -> None:
    few = call("first", "second", "--limit", "1").output
    assert "more rows; --limit N or --json shows them" in few
    assert "filter.max_error_rate" not in few
    whole = call("first", "second", "--all").output
    assert "filter.max_error_rate" in whole
    assert "more rows" not in whole
    assert len(value("first", "second", "--all")["counts"]) > len(value("first", "second")["counts"])


def test_json_has_the_documents_and_differences_and_says_what_is_only_in_one(folders: tuple[Path, Path]) -> None:
    found = value("first", "second")
    assert found["documents"] == {"both": 2, "only_a": 1, "only_b": 1}
    scores = {one["metric"]: one for one in found["scores"]}
    assert scores["bits_per_byte"]["difference"] == -0.535
    assert scores["bits_per_byte"]["better"] == "b"
    settings = {one["name"]: one for one in found["settings"]}
    assert settings["dedup.hosts"] == {"name": "dedup.hosts", "a": None, "b": ["docs"], "only_in": "b"}


def test_releases_of_elsewhere_are_compared_without_documents(
    folders: tuple[Path, Path], workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_STATE", str(workspace / "elsewhere"))
    found = value(*map(str, folders))
    assert found["documents"] is None
    assert found["settings"]
    assert isinstance(refused(manifest_hash(folders[0]), str(folders[1])), UsageError)


def test_a_mark_of_a_takedown_is_said_beside_the_name(folders: tuple[Path, Path]) -> None:
    write_json(Path("data/release/takedown.json"), {"tombstones": {"t-1": {"documents": 2}}})
    result = call("first", "data/release")
    assert "marked by a takedown (t-1)" in " ".join(result.output.split())

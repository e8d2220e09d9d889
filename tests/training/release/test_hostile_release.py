"""A release folder of somebody who wants to harm whoever checks it: verify.py answers 0, 1 or 2, and soon."""

from __future__ import annotations

import ast
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.proof.verify import _same_release as same_release
from tests.training.release.test_verify import build_release
from training.release import verify
from training.release.signing import find_signature

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
NAME = "config.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADWATER_STATE", str(root / "state"))
        return build_release(root)


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "release")


def check(folder: Path, *arguments: str, isolated: bool = True) -> subprocess.CompletedProcess[str]:
    program = ["-I", "verify.py"] if isolated else ["verify.py"]
    return subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=60,
        check=False,
    )


def answered(folder: Path, *arguments: str) -> str:
    result = check(folder, *arguments)
    assert result.returncode in (0, 1, 2), result.stderr
    assert "Traceback" not in result.stderr
    assert not CONTROL.search(result.stdout + result.stderr)
    return result.stdout + result.stderr


def imported() -> list[str]:
    """Every module that verify.py imports, and those that these import from the standard library's files."""
    tree = ast.parse(Path(verify.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return sorted({name.partition(".")[0] for name in names} | {"__future__", "re", "enum", "gettext", "inspect"})


@pytest.mark.parametrize("name", [name for name in imported() if name not in sys.builtin_module_names])
def test_a_module_planted_beside_it_is_never_imported(folder: Path, name: str) -> None:
    (folder / f"{name}.py").write_text("import sys\nopen('was_here', 'w').close()\nsys.exit(0)\n")
    refused = check(folder, isolated=False)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
    assert "python3 -I verify.py" in refused.stderr
    assert check(folder).returncode == 1  # an added file
    assert not (folder / "was_here").exists()


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def unreadable(path: Path) -> None:
    path.write_bytes(b"x")
    path.chmod(0)


def loop(path: Path) -> None:
    path.mkdir()
    (path / "again").symlink_to(path)


def deep(path: Path) -> None:
    for _ in range(200):
        path = path / "d"
    path.mkdir(parents=True)


def sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(1 << 42)


IN_PLACE: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "socket": bound_socket,
    "folder": lambda path: path.mkdir(),
    "link to itself": lambda path: path.symlink_to(path),
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to the same bytes": lambda path: path.symlink_to(path.with_name("LICENCE.bak")),
    "folder that holds itself": loop,
    "deep folder": deep,
    "huge file": sparse,
    "unreadable file": unreadable,
}


@pytest.mark.parametrize(
    "name", [NAME, "_manifest.json", "lineage.json", "manifests/mix.json", "model.safetensors", "model.sig"]
)
@pytest.mark.parametrize("kind", IN_PLACE)
def test_what_is_no_file_is_refused_and_not_waited_for(
    folder: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)  # a socket's address is short
    path = Path(name)
    path.unlink(missing_ok=True)
    IN_PLACE[kind](path)
    if name == "model.sig" and kind in ("huge file", "unreadable file"):
        assert "not checkable here  signature" in answered(folder)  # any file may stand there
    else:
        assert "FAIL" in answered(folder)


@pytest.mark.parametrize("device", ["/dev/full", "/dev/tty"])
def test_a_device_is_refused(folder: Path, device: str) -> None:
    if os.geteuid() != 0 or not Path(device).exists():
        pytest.skip("making a device takes root")
    (folder / NAME).unlink()
    try:
        os.mknod(folder / NAME, 0o600 | 0o020000, Path(device).stat().st_rdev)
    except PermissionError:
        pytest.skip("making a device is not allowed here")
    assert "a device" in answered(folder)


NAMES = [
    "../up.json",
    "/etc/passwd",
    "a\\b",
    "a\x00b",
    "a\x1b[2Jb",
    "\udcff",
    "a/../b",
    "./a",
    "a//b",
    "\u202ea",
    "",
    7,
]
BOMBS = {
    "deep": b"[" * 2_000_000,
    "deep object": b'{"a":' * 200_000,
    "huge number": b'{"counts": ' + b"9" * 1_000_000 + b"}",
    "not a number": b'{"a": NaN}',
    "infinite": b'{"a": 1e999}',
    "key twice": b'{"stage": "x", "stage": "release"}',
    "empty": b"",
    "no object": b"[]",
    "null": b"null",
    "lone surrogate": rb'{"stage": "\ud800", "\u001b": "\u001b]0;x\u0007"}',
    "not text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_elsewhere_is_one_break_and_is_printed_plainly(folder: Path, name: object) -> None:
    told = json.loads((folder / "_manifest.json").read_bytes())
    told["shards"].append({"name": name, "sha256": "0" * 64, "rows": None, "bytes": 1})
    (folder / "_manifest.json").write_text(json.dumps(told))
    assert "FAIL" in answered(folder)
    answered(folder, "--json")
    if isinstance(name, str):
        (result,) = [one for one in verify.check_release(folder) if one.claim == "names"]
        assert sum("plain name" in one.expected for one in result.breaks) == 1


@pytest.mark.parametrize("name", ["_manifest.json", "lineage.json", "gate.json", "manifests/mix.json"])
@pytest.mark.parametrize("bomb", BOMBS)
def test_json_that_is_made_to_hurt_is_a_break(folder: Path, name: str, bomb: str) -> None:
    (folder / name).write_bytes(BOMBS[bomb])
    assert "FAIL" in answered(folder)


def test_file_names_with_control_characters_are_escaped(folder: Path) -> None:
    (folder / "a\x1b[31mb\u202e\n.txt").write_text("x")
    (folder / os.fsdecode(b"\xff\xfe")).write_text("x")
    said = answered(folder)
    assert "a\\x1b[31mb\\u202e\\n.txt" in said
    assert "\\udcff" in said


@pytest.mark.parametrize(
    "offsets", [[0, 1 << 62], [-5, 5], [5, 0], [0, 0], ["a", "b"], [0], [1.5, 2], [1 << 70, 1 << 71]]
)
def test_a_header_of_weights_that_lies_is_a_break(folder: Path, offsets: list[object]) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": offsets}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    assert "FAIL" in answered(folder)


def test_very_many_files_are_counted_and_not_all_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3000):
        (folder / f"more-{number}").touch()
    (names,) = [one for one in verify.check_release(folder) if one.claim == "names"]
    assert len(names.breaks) == verify.MOST_BREAKS
    monkeypatch.setattr(verify, "MOST_FILES", 1000)
    (names,) = [one for one in verify.check_release(folder) if one.claim == "names"]
    assert "no release is" in names.breaks[0].found


@pytest.mark.parametrize("seed", range(60))
def test_whatever_a_folder_holds_it_answers_in_plain_text(folder: Path, seed: int) -> None:
    """A fuzz in the process itself, for speed: no error leaves it, and what it says can be printed."""
    generator = random.Random(seed)
    for _ in range(generator.randrange(1, 6)):
        hurt(folder, generator)
    told = verify.report(folder, verify.check_release(folder))
    assert told["verdict"] == "fail"
    assert not CONTROL.search(verify.as_text(told))
    json.dumps(told).encode("ascii")


def hurt(folder: Path, generator: random.Random) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    path = generator.choice(files)
    content = path.read_bytes() if os.access(path, os.R_OK) else b""
    kind = generator.choice(["bytes", "insert", "cut", "json", "kind", "name"])
    if kind == "kind":
        path.unlink()
        kinds: list[Callable[[Path], None]] = [
            os.mkfifo,
            loop,
            lambda p: p.mkdir(),
            lambda p: p.symlink_to("/dev/zero"),
        ]
        generator.choice(kinds)(path)
    elif kind == "name":
        path.rename(path.with_name(os.fsdecode(generator.randbytes(8).replace(b"/", b"_").replace(b"\0", b"_"))))
    elif kind == "json":
        path.write_bytes(generator.choice(list(BOMBS.values())))
    else:
        at = generator.randrange(len(content) + 1)
        junk = generator.randbytes(generator.randrange(1, 40))
        after = {"bytes": content[at + len(junk) :], "insert": content[at:], "cut": b""}[kind]
        path.write_bytes(content[:at] + (b"" if kind == "cut" and at < len(content) else junk) + after)


def test_a_manifest_without_an_end_is_not_read_to_find_its_signature(folder: Path) -> None:
    """`headwater verify` compares it with its own releases before it checks anything."""
    (folder / "_manifest.json").unlink()
    with (folder / "_manifest.json").open("wb") as stream:
        stream.truncate(1 << 43)  # more than any memory: who reads it whole fails
    own = folder.parent / "data/release/_manifest.json"
    own.parent.mkdir(parents=True)
    own.write_text("{}")
    assert find_signature(folder) is None
    assert not same_release(folder, folder.parent / "data")

"""What strangers wrote reaches no terminal as it is: every command is run on a workspace full of it."""

from __future__ import annotations

import json
import logging
import re
import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.padding import Padding
from rich.table import Table
from typer.main import get_command

from flows.cli.main import app, main
from flows.output import Terminal, Text, VisibleFormatter, one_line, visible
from tasks.contracts.document import Document, read_documents, write_documents
from tasks.contracts.durable_files import write_json
from tasks.contracts.errors import InputError
from tasks.contracts.ledger import LedgerRow, ledger_row
from tasks.contracts.manifest import MANIFEST_NAME, Counts, commit_manifest, describe_file, read_manifest
from tasks.extract.stage import Params as ExtractParams
from tests.conftest import ROOT
from tests.flows.proof import traced_workspace
from tests.flows.proof.traced_workspace import Planted
from training.champions import promote

HOSTILE = "\x1b[2J\x07\x9b31m\u202efdp\u2066\u2028[bold red]x[/]\x7f"
SHOWN = r"\x1b[2J"
OBEYED = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]"
)
URL = f"http://{traced_workspace.HOST}/kept{HOSTILE}.html"

anything = st.text(st.characters(codec=None, exclude_categories=()), max_size=60)


@given(anything)
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    assert not OBEYED.search(visible(text).replace("\t", ""))
    assert not OBEYED.search(one_line(text))
    assert "\n" not in one_line(text)
    assert visible(visible(text)) == visible(text)
    if not OBEYED.search(text) and text.isprintable():
        assert visible(text) == text


@given(anything)
def test_a_console_prints_it_whatever_it_stands_in(text: str) -> None:
    printed = StringIO()
    terminal = Terminal()
    terminal.file = printed
    table = Table(text, title=text)
    table.add_row(text)
    table.add_row(Text(text, "bold"))
    for one in (text, Text(text), Text.assemble((text, "bold"), text), Padding(Text(text), 1), table):
        terminal.print(one)
        terminal.print(one, soft_wrap=True)
    terminal.lines(text)
    terminal.json({text: [text]})
    assert not OBEYED.search(printed.getvalue())
    assert printed.getvalue().encode()


def test_mark_up_and_emoji_are_text() -> None:
    terminal = Terminal()
    terminal.file = StringIO()
    terminal.print("[bold]a[/bold] [link=file:///etc]b[/link] :smile: [/]")
    assert terminal.file.getvalue() == "[bold]a[/bold] [link=file:///etc]b[/link] :smile: [/]\n"


def test_log_lines_and_their_tracebacks_are_shown_so_too() -> None:
    try:
        raise InputError("a file is odd", found=HOSTILE)
    except InputError as error:
        information = (type(error), error, error.__traceback__)
    record = logging.LogRecord("flows.x", logging.INFO, __file__, 1, "stage %s", (HOSTILE,), information)
    line = VisibleFormatter("%(message)s").format(record)
    assert not OBEYED.search(line)
    assert line.count(SHOWN) == 2


# Command → what to call it with, and whether it then shows something of a stranger's.
CALLS: dict[str, list[tuple[Sequence[str], bool]]] = {
    "run": [(["--until", HOSTILE], True), (["--set", HOSTILE], True), (["--set", f"crawl.seeds={HOSTILE}"], True)],
    "stage": [([HOSTILE], True)],
    "up": [([], True)],
    "init": [([f"new{HOSTILE}"], True)],
    "doctor": [([], True)],
    "report": [([], True)],
    "gc": [([], False)],
    "trace": [
        ([URL], True),
        ([HOSTILE], True),
        ([traced_workspace.HOST], True),
        (["--release", f"small{HOSTILE}"], True),
        (["--release", HOSTILE], True),
        (["--step", "0"], True),
        (["--text", "text.txt"], True),
        (["--index"], False),
    ],
    "verify": [(["data/release"], True), ([HOSTILE], True)],
    "diff": [(["data/release", "data/release"], True), ([HOSTILE, HOSTILE], True)],
    "sign": [([HOSTILE], False), (["--key", HOSTILE], True)],
    "adapt": [([HOSTILE], True), ([], False)],
    "serve": [([HOSTILE], True), (["data/release", "--host", HOSTILE], False)],
    "export": [([HOSTILE, HOSTILE], True), (["data/release", f"out{HOSTILE}", "--format", HOSTILE], True)],
    "lineage sync": [([], False)],
    "lineage picture": [([], True)],
    "params show": [(["crawl"], True), ([HOSTILE], True)],
    "params apply": [([HOSTILE], True)],
    "params diff": [([], True)],
    "plan": [
        (["--model", HOSTILE], True),
        (["--device", HOSTILE], True),
        (["--model", "7b", "--tokens", HOSTILE], True),
        (["--model", f"{{preset: {json.dumps(HOSTILE)}}}"], False),
        (["--model", "7b", "--write", f"config{HOSTILE}.json"], True),
    ],
    "filters list": [([], False)],
    "filters new": [([HOSTILE], True), (["length"], False)],
    "filters show": [(["url"], True), ([HOSTILE], True)],
    "filters try": [(["length", "--set", "min_words=1000"], True), ([HOSTILE], True)],
    "filters train-classifier": [
        (["--good", f"good{HOSTILE}.txt", "--bad", "bad.txt", "--output", f"model{HOSTILE}.json"], True)
    ],
    "takedown add": [([URL, "--reason", HOSTILE], True), ([HOSTILE, "--reason", "x"], True)],
    "takedown list": [([], True)],
    "takedown plan": [([], True)],
    "takedown apply": [([], False)],
    "policy check": [([], True)],
}


def commands() -> Iterator[tuple[str, bool]]:
    """Yield every command's name, and whether it has --json."""

    def leaves(command: object, name: str) -> Iterator[tuple[str, bool]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield name, any("--json" in parameter.opts for parameter in command.params)  # type: ignore[attr-defined]
            return
        for key, one in inner.items():
            yield from leaves(one, f"{name} {key}".strip())

    return leaves(get_command(app), "")


JSON = dict(commands())


def test_every_command_is_in_the_table() -> None:
    assert set(JSON) == set(CALLS)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which names, rules, details, titles, licences and the folder's own name are a stranger's."""
    root = tmp_path_factory.mktemp("hostile") / f"work{HOSTILE.replace('/', '')}"
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADWATER_STATE", str(root / ".headwater"))
        patch.setattr(
            Planted, "url", property(lambda page: f"http://{traced_workspace.HOST}/{page.name}{HOSTILE}.html")
        )
        pages = [replace(page, rule=page.rule and page.rule + HOSTILE) for page in traced_workspace.PAGES]
        patch.setattr(traced_workspace, "PAGES", tuple(pages))
        patch.setattr(traced_workspace, "ledger_row", lambda *of: _hostile_row(ledger_row(*of)))
        traced = traced_workspace.make(root)
        extract = traced.data / "extract"
        (extract / MANIFEST_NAME).unlink()
        commit_manifest(
            extract, stage="extract", unit="documents", params=ExtractParams().identity(),
            inputs={"crawl": traced.data / "crawl"}, counts=Counts(in_=9, out=8, dropped={f"opt_out{HOSTILE}": 1}),
        )  # fmt: skip
        for stage in traced_workspace.TEXT_STAGES:
            _hostile_documents(traced.data / stage)
        release = traced.data / "release"
        (release / MANIFEST_NAME).unlink()
        (release / f"odd{HOSTILE.replace('/', '')}.txt").write_text("x")
        described = json.loads((release / "lineage.json").read_text())
        (release / "lineage.json").write_text(json.dumps({**described, "name": f"small{HOSTILE}"}))
        commit_manifest(
            release, stage="release", unit="files", params={}, inputs={"train": traced.data / "train"},
            counts=Counts(in_=1, out=1),
        )  # fmt: skip
        promote(release)
        (release / f"even more odd{HOSTILE.replace('/', '')}.txt").write_text("not in the manifest")
    shutil.copy(ROOT / "dvc.yaml", root)
    shutil.copytree(ROOT / "infra" / "profiles", root / "infra" / "profiles")
    written = (ROOT / "params.yaml").read_text()
    quoted = json.dumps(HOSTILE)
    written = written.replace('contact: ""', f"contact: {quoted}").replace("deny_hosts: []", f"deny_hosts: [{quoted}]")
    (root / "params.yaml").write_text(written)
    (root / "text.txt").write_text(traced_workspace.text_of("kept"))
    for name in (f"good{HOSTILE.replace('/', '')}.txt", "bad.txt"):
        (root / name).write_text("some words in a line\n" * 40)
    return root


def _hostile_row(row: LedgerRow) -> LedgerRow:
    return replace(row, detail=f"{row.detail}{HOSTILE}", record_id=f"{row.record_id}{HOSTILE}")


def _hostile_documents(folder: Path) -> None:
    odd: dict[str, Any] = {"title": HOSTILE, "license": HOSTILE, "language": HOSTILE, "opt_out": (HOSTILE,)}
    for path in sorted(folder.glob("part-*.parquet")):
        documents: list[Document] = list(read_documents(path))
        write_documents(path, [replace(one, **odd) for one in documents])
    manifest = read_manifest(folder)
    shards = tuple(describe_file(folder, shard.name) for shard in manifest.shards)
    told = manifest.model_copy(update={"shards": shards})
    write_json(folder / MANIFEST_NAME, told.model_dump(mode="json", by_alias=True))


@pytest.fixture
def inside(hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    root = tmp_path / hostile.name
    shutil.copytree(hostile, root, symlinks=True)
    monkeypatch.chdir(root)
    monkeypatch.setenv("HEADWATER_STATE", str(root / ".headwater"))
    handlers, handler = list(logging.getLogger().handlers), signal.getsignal(signal.SIGTERM)
    yield root
    logging.getLogger().handlers[:] = handlers
    signal.signal(signal.SIGTERM, handler)


def test_a_runs_summary(inside: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It ends a run, which no call above comes to."""
    from flows.cli import run as cli
    from flows.workspace.graph import load_graph

    report = inside / "data" / "gate" / "report.json"
    report.parent.mkdir(exist_ok=True)
    report.write_text(json.dumps({"verdict": HOSTILE, "rules": [{"verdict": HOSTILE}]}))
    cli._print_summary(list(load_graph()))
    cli._print_places(list(load_graph()))
    printed = "".join(capfd.readouterr())
    assert not OBEYED.findall(printed), printed
    assert SHOWN in printed


CASES = [(name, *call) for name, calls in CALLS.items() for call in calls]


@pytest.mark.parametrize(
    ("name", "arguments", "shows"), CASES, ids=[f"{name}-{i}" for i, (name, *_) in enumerate(CASES)]
)
def test_a_command_shows_it_as_escapes(
    inside: Path, capfd: pytest.CaptureFixture[str], name: str, arguments: Sequence[str], shows: bool
) -> None:
    if name in ("takedown list", "takedown plan", "takedown apply"):
        _called(["takedown", "add", traced_workspace.HOST, "--reason", HOSTILE])
    if name == "up":  # wrong settings end it before it starts anything
        (inside / "params.yaml").write_text(f"crawl: {{source: {json.dumps(HOSTILE)}}}\n")
    as_json = ["--plan", "--json"] if name == "run" else ["--json"]
    for more in ([], as_json) if JSON[name] else ([],):
        capfd.readouterr()
        _called([*name.split(), *arguments, *more])
        printed = "".join(capfd.readouterr())
        assert not OBEYED.findall(printed), printed
        assert "Traceback" not in printed, printed
        if shows:
            assert SHOWN in printed or "u001b[2J" in printed, printed


def _called(arguments: Sequence[str]) -> int:
    try:
        main(list(arguments))
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0

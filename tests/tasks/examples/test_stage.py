from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.document import read_documents
from tasks.contracts.errors import InputError, ParamsError
from tasks.contracts.ledger import read_ledger
from tasks.contracts.manifest import manifest_hash
from tasks.examples.stage import Params, run
from tasks.rights.takedowns import Row, append_row, text_sha256, tombstone_id

DAY = "2026-01-31"


def pair(asked: str, answer: str, **more: Any) -> str:
    return json.dumps({"prompt": asked, "completion": answer, **more})


def take(*lines: str, name: str = "chats.jsonl", output: str = "out", **settings: Any) -> Any:
    Path(name).write_text("\n".join(lines), encoding="utf-8")
    return run(params=Params(paths=(name,), **settings), inputs={}, output=Path(output))


def test_every_line_is_a_document_or_a_row_of_the_ledger(workspace: Path) -> None:
    made = take(pair("a?", "A"), "{broken", "", "[1]", pair("b?", ""), pair("c?", "C"), pair("A?", " a"))
    assert (made.counts.in_, made.counts.out) == (6, 2)
    assert made.counts.dropped == {"bad_line": 2, "duplicate": 1, "no_answer": 1}
    rows = {row.record_id: row for row in read_ledger(Path("out/dropped/part-00000.parquet"))}
    kept = {one.record_id: one for one in read_documents(Path("out/part-00000.parquet"))}
    assert set(rows) == {"chats.jsonl:2", "chats.jsonl:4", "chats.jsonl:5", "chats.jsonl:7"}
    assert set(kept) == {"chats.jsonl:1", "chats.jsonl:6"}
    assert rows["chats.jsonl:7"].survivor_id == kept["chats.jsonl:1"].doc_id


def test_the_same_lines_give_the_same_bytes_wherever_the_file_stands(workspace: Path) -> None:
    Path("elsewhere").mkdir()
    take(pair("a?", "A"), output="one")
    take(pair("a?", "A"), name="elsewhere/chats.jsonl", output="two")
    assert manifest_hash(Path("one")) == manifest_hash(Path("two"))
    take(pair("a?", "B"), output="three")
    assert manifest_hash(Path("one")) != manifest_hash(Path("three"))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("url", "http://a.example/page"),
        ("host", "*.a.example"),
        ("document", text_sha256("The answer.")),
    ],
)
def test_what_was_taken_down_is_not_learnt_from(workspace: Path, kind: Any, value: str) -> None:
    append_row(Row(id=tombstone_id(kind, value, DAY), kind=kind, value=value, reason="asked", date=DAY))
    made = take(pair("b?", "B"), pair("a?", "the  ANSWER.", url="http://a.example/page"))
    assert made.counts.dropped == {"takedown": 1}


NOTHING: list[tuple[list[str], bool]] = [
    ([], False),
    (["{broken", pair("a?", "")], False),
    ([pair("a?", "A")], True),
    ([json.dumps({"prompt": "a?", "chosen": "A", "rejected": "B"})], False),
]


@pytest.mark.parametrize(("lines", "preference"), NOTHING)
def test_files_without_an_answer_are_one_error_before_any_work(
    workspace: Path, lines: list[str], preference: bool
) -> None:
    with pytest.raises(InputError, match="no example has an answer to learn from"):
        take(*lines, preference=preference)
    assert not Path("out").exists()


def test_files_that_cannot_be_meant_are_told(workspace: Path) -> None:
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "x.jsonl").write_text(pair("a?", "A"))
    said = [next(Params(paths=paths).faults()) for paths in ((), ("a/x.jsonl", "b/x.jsonl"), ("gone.jsonl",))]
    assert [type(one) for one in said] == [ParamsError, ParamsError, InputError]
    assert "same name" in str(said[1])


def test_a_byte_order_mark_and_utf_16_are_read(workspace: Path) -> None:
    Path("x.jsonl").write_bytes(pair("é?", "É").encode("utf-16"))
    assert run(params=Params(paths=("x.jsonl",)), inputs={}, output=Path("out")).counts.out == 1

"""The stage examples: files of chats, instructions or preferences in, documents out; the beginning of an adaptation.

An example is a document like any other (`tasks.contracts.chats` says in which form), so the filters, decontamination,
the ledger and trace need nothing new for it. It is named by its file and line. A line that cannot be learnt from is a
ledger row; what was taken down, and what stands there twice, is dropped here.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tasks.contracts.base import StageParams, not_identity
from tasks.contracts.chats import to_text
from tasks.contracts.document import Document, make_doc_id, write_documents
from tasks.contracts.durable_files import sha256_file
from tasks.contracts.errors import HeadwaterError, InputError, ParamsError
from tasks.contracts.files import DROPPED_FOLDER, part_name
from tasks.contracts.ledger import LedgerRow, drops_by_rule, write_ledger
from tasks.contracts.manifest import Counts, Manifest, commit_manifest
from tasks.contracts.text_files import in_utf8, json_value
from tasks.contracts.urls import host_of
from tasks.examples.reading import BAD_LINE, FORMS, Unusable, turns_of
from tasks.rights.takedowns import RULE, Takedowns, read_takedowns, text_sha256

logger = logging.getLogger(__name__)

STAGE = "examples"
DOES = "takes the examples that the model is tuned on"
DUPLICATE = "duplicate"
MOST_LINE_BYTES = 64 * 1024 * 1024
TOO_LONG = b"{"
"""What stands for a line that is longer: no JSON, so it goes into the ledger."""


class Params(StageParams):
    """Settings of the stage examples: what `headwater adapt` learns from."""

    paths: tuple[str, ...] = not_identity(())
    """JSONL files, a chat, an instruction or a preference a line; their content counts, not their path."""
    filters: tuple[str, ...] = ("bad_words", "pii", "secrets")
    """Which of the rules in filter.rules an example goes through too, with the settings that stand there. The others
    judge pages of the web: prose of some length, lines, languages."""
    preference: bool = False
    """Whether a line holds a chosen and a rejected answer; `headwater adapt` sets it for adapt.method dpo."""

    def named_files(self) -> tuple[str, ...]:
        """Return the files of examples."""
        return self.paths

    def faults(self) -> Iterator[HeadwaterError]:
        """Yield that there are no files, or none that anything can be learnt from."""
        faults = list(super().faults())
        yield from faults
        names = Counter(Path(path).name for path in self.paths)
        if not self.paths:
            yield ParamsError(
                "there is nothing to learn from",
                where="params.yaml, examples.paths",
                expected="a JSONL file of examples",
                found="none",
                fix="headwater adapt FILE",
            )
        elif twice := [name for name, number in names.items() if number > 1]:
            yield ParamsError(
                "two files of examples have the same name, and the ledger could not tell them apart",
                where="params.yaml, examples.paths",
                expected="one file of each name",
                found=", ".join(twice),
            )
        elif not faults:
            yield from self._without_answers()

    def _without_answers(self) -> Iterator[HeadwaterError]:
        reasons: Counter[str] = Counter()
        first = ""
        for path in self.paths:
            for number, line in lines_of(Path(path)):
                try:
                    turns_of(_object(line), preference=self.preference)
                    return
                except Unusable as why:
                    reasons[why.rule] += 1
                    first = first or f"{Path(path).name}, line {number}: {why.detail}"
        yield InputError(
            "no example has an answer to learn from",
            where=", ".join(self.paths),
            expected="lines with prompt, chosen and rejected" if self.preference else f"lines with {FORMS}",
            found=f"{', '.join(f'{rule} {n:,}' for rule, n in reasons.items())}; {first}" if first else "no line",
            fix="adapt.method says what is learnt: dpo needs preferences, the others answers",
        )


def run(*, params: Params, inputs: Mapping[str, Path], output: Path) -> Manifest:
    """Take the examples of all files; there are no inputs.

    Raises:
        InputError: a file is missing, or none has an answer to learn from.
    """
    for fault in params.faults():
        raise fault
    reader = _Reader(params, read_takedowns())
    kept = write_documents(output / part_name(0, ".parquet"), reader.documents())
    write_ledger(output / DROPPED_FOLDER / part_name(0, ".parquet"), reader.rows)
    files = {Path(path).name: sha256_file(Path(path)) for path in params.paths}
    return commit_manifest(
        output,
        stage=STAGE,
        unit="documents",
        params={**params.identity(), "files": {**files}},
        inputs=inputs,
        counts=Counts(in_=reader.seen, out=kept, dropped=drops_by_rule(reader.rows)),
    )


class _Reader:
    """Reads the files; each line becomes a document or a ledger row."""

    def __init__(self, params: Params, takedowns: Takedowns) -> None:
        self.params = params
        self.takedowns = takedowns
        self.rows: list[LedgerRow] = []
        self.seen = 0
        self._known: dict[str | None, str] = {}

    def documents(self) -> Iterator[Document]:
        """Yield the examples that are kept, in the order of files and lines."""
        for path in map(Path, self.params.paths):
            for number, line in lines_of(path):
                self.seen += 1
                record = f"{path.name}:{number}"
                doc_id = make_doc_id(STAGE, record)
                try:
                    document = self._document(line, record, doc_id)
                except Unusable as why:
                    self._drop(why.rule, doc_id, record, detail=why.detail)
                    continue
                survivor = self._known.setdefault(text_sha256(document.text), doc_id)
                if survivor != doc_id:
                    self._drop(DUPLICATE, doc_id, record, survivor_id=survivor)
                    continue
                yield document
            logger.info("examples: %s, %d lines so far, %d dropped", path.name, self.seen, len(self.rows))

    def _document(self, line: bytes, record: str, doc_id: str) -> Document:
        said = _object(line)
        turns = turns_of(said, preference=self.params.preference)
        url = said["url"] if isinstance(said.get("url"), str) else ""
        license_ = said["license"] if isinstance(said.get("license"), str) else None
        text = to_text(turns)
        for one in (text, *(turn for _, turn in turns)):
            if why := self.takedowns.covers(url=url, host=host_of(url), payload_digest=None, text=one):
                raise Unusable(RULE, f"tombstone {why[0]}, by its {why[1]}")
        return Document(
            doc_id=doc_id, url=url or record, host=host_of(url), record_id=record, source=STAGE, text=text,
            license=license_,
        )  # fmt: skip

    def _drop(
        self, rule: str, doc_id: str, record: str, *, detail: str | None = None, survivor_id: str | None = None
    ) -> None:
        self.rows.append(
            LedgerRow(
                stage=STAGE, action="drop", rule=rule, doc_id=doc_id, url=record, record_id=record,
                survivor_id=survivor_id, detail=detail,
            )
        )  # fmt: skip


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file that are not blank, with their numbers from 1.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as raw:
            stream = in_utf8(raw)
            number = 0
            while line := stream.readline(MOST_LINE_BYTES):
                number += 1
                if len(line) == MOST_LINE_BYTES and not line.endswith(b"\n"):
                    while (rest := stream.readline(MOST_LINE_BYTES)) and not rest.endswith(b"\n"):
                        pass
                    line = TOO_LONG
                if line.strip():
                    yield number, line
    except OSError as error:
        raise InputError(
            "a file of examples cannot be read", where=str(path), expected="a JSONL file", found=str(error)
        ) from error


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json_value(line)
    except ValueError as error:
        raise Unusable(BAD_LINE, f"not JSON: {error}"[:300]) from error
    if not isinstance(value, dict):
        raise Unusable(BAD_LINE, f"a JSON {type(value).__name__}, not an object")
    return value

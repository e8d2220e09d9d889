"""The texts that must not be in the training documents: items of evaluation tasks and of benchmark files.

Which fields of an item are read: those whose name says question, context, choice, answer or the like
(`TEXT_FIELDS`), their strings, lists and nested objects included; where no field is named so, every string of the
item. So a query that leaked without its answer is found, and so is a published answer.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.contracts.errors import InputError, NetworkError, ParamsError

logger = logging.getLogger(__name__)

TEXT_FIELDS = (
    "answer", "article", "choice", "claim", "completion", "context", "continuation", "ctx", "ending", "goal",
    "hypothesis", "input", "option", "output", "passage", "premise", "problem", "prompt", "query", "question",
    "sentence", "sol", "story", "target", "text",
)  # fmt: skip

_ID_FIELDS = ("item_id", "task_id", "id", "question_id")
_NOT_TEXT = ("_id", "_ids", "idx", "label", "url")


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemText:
    """One text of one item.

    Attributes:
        task: the task's name, or the benchmark file's.
        item: the item's own id, or "line 17".
        field: which of its fields the text is.
    """

    task: str
    item: str
    field: str
    text: str


def benchmark_texts(path: Path) -> Iterator[ItemText]:
    """Yield the texts of a benchmark file: JSONL, one item a line.

    Raises:
        InputError: the file is missing, a line is not a JSON object, or it holds no text at all.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "a benchmark file cannot be read, so its items would not be protected",
            where=str(path),
            expected="a UTF-8 JSONL file",
            found=str(error),
            fix="correct the path in params.yaml, decontaminate.benchmarks",
        ) from error
    found = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        for one in _item_texts(path.name, f"line {number}", _parse(path, number, line)):
            found += 1
            yield one
    if not found:
        raise InputError(
            "a benchmark file holds no text, so nothing of it would be protected",
            where=str(path),
            expected=f"JSON objects with fields such as {', '.join(TEXT_FIELDS[:6])}",
            found=f"{len(lines)} lines",
        )


def task_texts(names: Sequence[str], local: Path) -> Iterator[ItemText]:
    """Yield the texts of evaluation tasks: local ones from `local`/NAME.jsonl, others through lm-eval.

    Raises:
        ParamsError: lm-eval knows no task of that name.
        NetworkError: the task's items cannot be fetched, so they cannot be protected.
    """
    remote = []
    for name in names:
        path = local / f"{name}.jsonl"
        if path.is_file():
            for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
                if line.strip():
                    yield from _item_texts(name, f"line {number}", _parse(path, number, line))
        else:
            remote.append(name)
    if remote:
        yield from _hub_texts(remote)


def _hub_texts(names: Sequence[str]) -> Iterator[ItemText]:
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    for name in names:
        if name not in manager.all_tasks:
            raise ParamsError(
                "no such evaluation task, so its items cannot be protected",
                where="params.yaml, evaluate.tasks",
                expected="a task of the stage holdout, or one that `lm-eval ls tasks` lists",
                found=name,
            )
        try:
            tasks = manager.load([name])["tasks"]
            items = {subtask: list(task.eval_docs) for subtask, task in sorted(tasks.items())}
        except Exception as error:  # a hub, its client and dataset builders raise errors of many kinds
            raise NetworkError(
                f"the items of the evaluation task {name!r} cannot be read, so they cannot be protected",
                where="params.yaml, evaluate.tasks",
                found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
                fix="connect to the hub, fill its cache (HF_HOME) beforehand, or take the task off evaluate.tasks",
            ) from error
        for subtask, documents in items.items():
            for number, item in enumerate(documents, start=1):
                yield from _item_texts(subtask, f"item {number}", item)


def _parse(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        item = json.loads(line)
    except ValueError as error:
        raise InputError(
            "a benchmark item is not JSON", where=f"{path}, line {number}", expected="a JSON object", found=str(error)
        ) from error
    if not isinstance(item, dict):
        raise InputError(
            "a benchmark item is not an object",
            where=f"{path}, line {number}",
            expected="a JSON object",
            found=type(item).__name__,
        )
    return item


def _item_texts(task: str, place: str, item: Mapping[str, Any]) -> Iterator[ItemText]:
    own = next((str(item[key]) for key in _ID_FIELDS if isinstance(item.get(key), str | int)), None)
    named = list(_strings(item, only_named=True)) or list(_strings(item, only_named=False))
    for field, text in named:
        yield ItemText(task=task, item=own or place, field=field, text=text)


def _strings(item: Mapping[str, Any], *, only_named: bool) -> Iterator[tuple[str, str]]:
    for key, value in item.items():
        name = str(key).lower()
        if name in _ID_FIELDS or name.endswith(_NOT_TEXT):
            continue
        if not only_named or any(part in name for part in TEXT_FIELDS):
            yield from ((str(key), text) for text in _flat(value))


def _flat(value: object) -> Iterable[str]:
    if isinstance(value, str):
        return [value] if value.strip() else []
    if isinstance(value, Mapping):
        return [text for key, one in value.items() if not str(key).lower().endswith(_NOT_TEXT) for text in _flat(one)]
    if isinstance(value, Sequence):
        return [text for one in value for text in _flat(one)]
    return []

"""The texts that must not be in the training documents: items of evaluation tasks and of benchmark files.

Of a benchmark file, those fields are read whose name says question, context, choice, answer or the like
(`TEXT_FIELDS`), their strings, lists and nested objects included; where no field is named so, every string of the
item. So a query that leaked without its answer is found, and so is a published answer. A label such as "Question:"
divides a text: what stands between labels is protected by itself as well, since a page need not repeat the label.
A question that is too short to be looked for alone is protected together with each answer.

Of a task that lm-eval fetches, the task object itself is asked for prompt, choices, target and few-shot examples.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tasks.contracts.errors import InputError, ParamsError, RefusedError
from tasks.contracts.hubs import hub_error, is_network_fault
from tasks.contracts.text_files import json_value

logger = logging.getLogger(__name__)

TEXT_FIELDS = (
    "answer", "article", "choice", "claim", "completion", "context", "continuation", "ctx", "ending", "explanation",
    "goal", "hypothesis", "input", "instruction", "option", "output", "passage", "premise", "problem", "prompt",
    "query", "question", "rationale", "sentence", "sol", "story", "target", "text", "thought",
)  # fmt: skip

_ASKING = ("question", "query", "problem", "goal", "instruction", "prompt", "input")
_BEFORE = ("ctx", "context", "premise", "sentence", "story", "passage")
_ANSWERING = ("answer", "choice", "option", "ending", "sol", "target", "output", "completion", "continuation")
_ID_FIELDS = ("item_id", "task_id", "id", "question_id")
_NOT_TEXT = ("_id", "_ids", "idx", "label", "url")
_SPLITS = ("train", "validation", "valid", "val", "dev", "test")
_LABEL = re.compile(
    r"^[ \t]*(?:passage|question|query|context|problem|instruction|input|answer|options?|choices|q|a)[ \t]*[:：]"
    r"|[ \t](?:answer|a)[ \t]*[:：]\s*\Z",
    re.IGNORECASE | re.MULTILINE,
)
SHORT_QUESTION_WORDS = 13
MOST_ANSWERS = 10

Role = Literal["asked", "part", "both"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemText:
    """One text of one item.

    Attributes:
        task: the task's name, or the benchmark file's.
        split: which part of it, such as "test" or "few-shot"; "" where nothing says.
        item: the item's own id, or "line 17".
        field: which of its fields the text is.
        text: "" where the item has none, so that it is counted.
        role: what it is of the item: what asks (or all that there is), a part such as an answer, or a question with
            an answer after it.
    """

    task: str
    split: str
    item: str
    field: str
    text: str
    role: Role = "asked"


def benchmark_texts(path: Path) -> Iterator[ItemText]:
    """Yield the texts of a benchmark file: JSONL, one item a line.

    Raises:
        InputError: the file is missing, a line is not a JSON object, or it holds no text at all.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "a benchmark file cannot be read, so its items would not be protected",
            where=str(path),
            expected="a UTF-8 JSONL file",
            found=str(error),
            fix="correct the path in params.yaml, decontaminate.benchmarks",
        ) from error
    found = 0
    split = _split_of(path.stem)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        for one in item_texts(path.name, f"line {number}", _parse(path, number, line), split=split):
            found += bool(one.text)
            yield one
    if not found:
        raise InputError(
            "a benchmark file holds no text, so nothing of it would be protected",
            where=str(path),
            expected=f"JSON objects with fields such as {', '.join(TEXT_FIELDS[:6])}",
            found=f"{len(lines)} lines",
        )


def task_texts(names: Sequence[str], local: Path) -> Iterator[ItemText]:
    """Yield the texts of evaluation tasks: those of the stage holdout from their files, others through lm-eval.

    A task of the stage holdout names each field that lm-eval reads as a column of `local`/NAME.jsonl, so its rows
    are its prompts, choices and targets.

    Raises:
        ParamsError: lm-eval knows no task of that name.
        NetworkError: the task's items cannot be fetched, so they cannot be protected.
        RefusedError: nor could they at another time.
    """
    remote = []
    for name in names:
        path = local / f"{name}.jsonl"
        if path.is_file():
            for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
                if line.strip():
                    yield from item_texts(name, f"line {number}", _parse(path, number, line), split="test")
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
            texts = [text for subtask, task in sorted(tasks.items()) for text in asked_texts(subtask, task)]
        except Exception as error:  # a hub, its client and dataset builders raise errors of many kinds
            kind = hub_error() if is_network_fault(error) else RefusedError
            raise kind(
                f"the items of the evaluation task {name!r} cannot be read, so they cannot be protected",
                where="params.yaml, evaluate.tasks",
                found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
                fix="connect to the hub, fill its cache (HF_HOME) beforehand, or take the task off evaluate.tasks",
            ) from error
        yield from texts


def asked_texts(name: str, task: Any) -> Iterator[ItemText]:
    """Yield what an lm-eval task object puts before a model: its items, prompts, choices and few-shot examples."""
    config = task.config
    scored = config.test_split or config.validation_split or "test"
    for number, item in enumerate(task.eval_docs):
        yield from _task_item(name, scored, f"item {number}", task, item)
    split = getattr(config, "fewshot_split", None)
    samples = (getattr(config, "fewshot_config", None) or {}).get("samples")
    if (split and split != scored) or samples or (config.num_fewshot or 0) > 0:
        for number, item in enumerate(task.fewshot_docs() or ()):
            yield from _task_item(name, "few-shot", f"item {number}", task, item)


def _task_item(name: str, split: str, place: str, task: Any, item: Mapping[str, Any]) -> Iterator[ItemText]:
    yield from item_texts(name, place, item, split=split)
    own = _own_id(item) or place
    asked, target = task.doc_to_text(item), task.doc_to_target(item)
    choices = task.doc_to_choice(item) if task.config.doc_to_choice is not None else []
    rendered: tuple[tuple[str, object, Role], ...] = (
        ("prompt", asked, "asked"), ("choice", list(choices), "part"), ("target", target, "part"),
    )  # fmt: skip
    texts = [(field, text, role) for field, value, role in rendered for text in _flat(value)]
    yield from _pieces(name, split, own, texts)
    if isinstance(asked, str):
        answers = [*_flat(list(choices)), *_flat(target)][:MOST_ANSWERS]
        yield from _with_answers(name, split, own, "prompt and answers", asked, answers)


def _parse(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        item = json_value(line)
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


def item_texts(task: str, place: str, item: Mapping[str, Any], *, split: str) -> Iterator[ItemText]:
    """Yield the texts of one item given as a mapping: its fields, and a short question with each answer."""
    own = _own_id(item) or place
    named = list(_strings(item, only_named=True)) or list(_strings(item, only_named=False))
    if not named:
        yield ItemText(task=task, split=split, item=own, field="", text="")
    asked = [(field, text) for field, text in named if any(part in field.lower() for part in _ASKING)]
    before = [(field, text) for field, text in named if any(part in field.lower() for part in _BEFORE)]
    whole = asked[:1] or sorted(before, key=lambda one: len(one[1]))[-1:]
    whole = whole or [one for one in named if not _answers(one[0])] or (named if len(named) == 1 else [])
    yield from _pieces(task, split, own, [(*one, "asked" if one in whole else "part") for one in named])
    answers = [text for field, text in named if _answers(field)]
    for field, text in asked[:1] or sorted(before, key=lambda one: len(one[1]))[-1:]:
        others = [answer for answer in answers if answer != text][:MOST_ANSWERS]
        yield from _with_answers(task, split, own, f"{field} and answers", text, others)


def _answers(field: str) -> bool:
    return any(part in field.lower() for part in _ANSWERING)


def _pieces(task: str, split: str, item: str, fields: Iterable[tuple[str, str, Role]]) -> Iterator[ItemText]:
    """Yield each text, and what stands between the labels in it."""
    for field, text, role in fields:
        yield ItemText(task=task, split=split, item=item, field=field, text=text, role=role)
        if _LABEL.search(text):
            for piece in _LABEL.split(text):
                if piece.strip():
                    yield ItemText(task=task, split=split, item=item, field=field, text=piece, role=role)


def _with_answers(
    task: str, split: str, item: str, field: str, question: str, answers: Sequence[str]
) -> Iterator[ItemText]:
    """Yield what only question and answers together hold.

    A question too short to be looked for alone is followed by each answer, as a page of questions and answers has
    them, a line break between the two. The end of a longer one is followed by all of them, as a prompt has them:
    their n-grams across the borders.
    """
    parts = [piece for piece in _LABEL.split(question) if piece.strip()]
    if not parts or not answers:
        return
    last = parts[-1].split()
    texts = []
    if len(parts) == 1 and len(last) < SHORT_QUESTION_WORDS:
        texts += [f"{' '.join(last)}\n{' '.join(answer.split())}" for answer in answers]
    texts.append(" ".join([*last[1 - SHORT_QUESTION_WORDS :], *answers]))
    yield from (ItemText(task=task, split=split, item=item, field=field, text=text, role="both") for text in texts)


def _own_id(item: Mapping[str, Any]) -> str | None:
    return next((str(item[key]) for key in _ID_FIELDS if isinstance(item.get(key), str | int)), None)


def _split_of(stem: str) -> str:
    """Return the split that a file's name ends in: "gsm8k_test" gives "test".

    >>> _split_of("gsm8k_test"), _split_of("copa")
    ('test', '')
    """
    last = re.split(r"[_\-.]", stem.lower())[-1]
    return last if last in _SPLITS else ""


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

"""Says of somebody's filter that is broken what is wrong with it, in which file and line."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from numbers import Real
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

from tasks.contracts.base import Drop, Edit, Measured
from tasks.contracts.errors import ParamsError
from tasks.contracts.workspace import ROOT

Failure = (Exception, SystemExit)
"""What a filter's file or call may raise that is its own fault."""


def imported(name: str, problem: str, where: str, fix: str) -> ModuleType:
    """Import the module that holds a filter.

    Args:
        problem, where: what the error says first, and the setting that lists the filter.
        fix: what to do besides correcting the file.

    Raises:
        ParamsError: it cannot be imported, whatever stands in it.
    """
    try:
        return importlib.import_module(name)
    except Failure as error:
        raise ParamsError(problem, where=where, found=said_of(error), fix=f"correct its file, or {fix}") from error


def said_of(error: BaseException, file: str | None = None) -> str:
    """Return an error's class and text, and where it arose: in `file`, where that is among the places.

    >>> try:
    ...     {}["a"]
    ... except KeyError as error:
    ...     said_of(error).split(" (")[0]
    "KeyError: 'a'"
    """
    if isinstance(error, SyntaxError) and error.filename:
        place: tuple[str, int | None] = error.filename, error.lineno
        text = error.msg
    else:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
        own = [frame for frame in frames if frame.filename == file] or frames
        place = (own[-1].filename, own[-1].lineno) if own else ("", None)
        text = str(error)
    line = f", line {place[1]}" if place[1] else ""
    return f"{type(error).__name__}: {text}"[:200] + (f" ({shown(place[0])}{line})" if place[0] else "")


def shown(file: str) -> str:
    """Return a file's path below the project or below the packages, the same on every machine."""
    path = Path(file)
    if path.is_relative_to(ROOT):
        return path.relative_to(ROOT).as_posix()
    parts = PurePath(file).parts
    for folder in ("site-packages", "dist-packages"):
        if folder in parts:
            return PurePath(*parts[parts.index(folder) + 1 :]).as_posix()
    return path.name


def wrong_answer(answer: Any, call: Callable[..., Any]) -> str | None:
    """Return what is wrong with what a filter gave, and where the filter stands; None where nothing is.

    >>> wrong_answer(None, len), wrong_answer(Drop(rule="short", score=1.0), len), wrong_answer(False, len)
    (None, None, 'TypeError: False (bool) is no answer: return None, a Drop or an Edit')
    """
    said = None
    if isinstance(answer, Edit) and not isinstance(answer.text, str):
        said = f"the text of an Edit is {_kind(answer.text)}"
    elif isinstance(answer, Drop | Edit):
        numbers = {name: getattr(answer, name, None) for name in ("score", "threshold")}
        texts = {name: getattr(answer, name, None) for name in ("detail", "survivor_id")}
        wrong = [name for name, value in numbers.items() if not isinstance(value, Real | None)]
        wrong += [name for name, value in texts.items() if not isinstance(value, str | None)]
        wrong += [] if isinstance(answer.rule, str) and answer.rule else ["rule"]
        if wrong:
            said = f"{wrong[0]} of a {type(answer).__name__} is {_kind(getattr(answer, wrong[0]))}"
    elif answer is not None:
        said = f"{_kind(answer)} is no answer: return None, a Drop or an Edit"
    if said is None:
        return None
    return _at(call, said)


def wrong_measurement(measured: Any, call: Callable[..., Any]) -> str | None:
    """Return what is wrong with what a filter's `measure` gave, and where it stands; None where nothing is.

    >>> wrong_measurement(Measured(values={"words": 3}), len), wrong_measurement({"words": 3}, len)
    (None, "TypeError: {'words': 3} (dict) is no measurement: return Measured(values={name: number})")
    """
    if not isinstance(measured, Measured):
        return _at(call, f"{_kind(measured)} is no measurement: return Measured(values={{name: number}})")
    if not isinstance(measured.values, Mapping):
        return _at(call, f"values of a Measured is {_kind(measured.values)}")
    wrong = next((name for name, value in measured.values.items() if not isinstance(value, Real)), None)
    if wrong is not None:
        return _at(call, f"the value {wrong} of a Measured is {_kind(measured.values[wrong])}")
    if not isinstance(measured.detail, str | None):
        return _at(call, f"detail of a Measured is {_kind(measured.detail)}")
    answer = measured.otherwise
    named = replace(answer, rule="otherwise") if isinstance(answer, Drop | Edit) and answer.rule == "" else answer
    return wrong_answer(named, call)


def _at(call: Callable[..., Any], said: str) -> str:
    code = getattr(getattr(call, "__func__", call), "__code__", None)
    return f"TypeError: {said}" + (f" ({shown(code.co_filename)}, line {code.co_firstlineno})" if code else "")


def _kind(value: object) -> str:
    return f"{value!r:.60} ({type(value).__name__})"

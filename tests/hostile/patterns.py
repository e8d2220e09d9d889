"""Every regular expression of the source code, found by looking: so a new one is tried without being named anywhere."""

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cached_property
from pathlib import Path
from re import _constants as constants  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from types import ModuleType
from typing import Any

from pydantic import BaseModel

import tasks
import training

# Reads this machine's own Python packages to make the sample's pages, nothing that a stranger wrote to us.
NOT_OUTSIDE = ("tasks.crawl.sample",)
MOST_PARTS = 16
MOST_BEGINNINGS = 8
CALLS = ("compile", "search", "match", "fullmatch", "sub", "subn", "split", "findall", "finditer")


def modules() -> Iterator[ModuleType]:
    for package in (tasks, training):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.startswith(NOT_OUTSIDE) and not found.name.endswith("__main__"):
                yield importlib.import_module(found.name)


def patterns() -> dict[str, tuple[re.Pattern[Any], str]]:
    """Return every pattern that a module holds, in whatever it is kept, and every literal one in its code.

    With each stands how it is used: "match" where the code never searches with it, else "search".
    """
    seen: dict[Any, tuple[str, re.Pattern[Any], str]] = {}
    for module in modules():
        source = Path(str(module.__file__)).read_text(encoding="utf-8")
        for name, value in vars(module).items():
            for pattern in _inside(value):
                methods = set(re.findall(rf"\b{re.escape(name)}(?:\[\w+\])?\.(\w+)\(", source))
                use = "match" if methods and methods <= {"match", "fullmatch"} else "search"
                seen.setdefault(pattern.pattern, (f"{module.__name__}.{name}", pattern, use))
        for line, pattern, method in _in_code(source):
            use = "match" if method in ("match", "fullmatch") else "search"
            seen.setdefault(pattern.pattern, (f"{module.__name__}:{line}", pattern, use))
    return {f"{name} {text!r}"[:160]: (pattern, use) for text, (name, pattern, use) in seen.items()}


def _inside(value: object, depth: int = 0) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, re.Pattern):
        yield value
        return
    if depth > 3:
        return
    parts: list[Any] = []
    if isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, list | tuple | set | frozenset):
        parts = list(value)
    elif isinstance(value, type) and value.__module__.startswith(("tasks.", "training.")):
        parts = [*vars(value).values(), *_computed(value)]
    elif is_dataclass(value):
        parts = [getattr(value, field.name, None) for field in fields(value)]
    elif callable(value) and isinstance(bound := getattr(value, "__self__", None), re.Pattern):
        yield bound
    for part in parts[:2000]:
        yield from _inside(part, depth + 1)


def _computed(kind: type) -> Iterator[object]:
    """Yield what the cached properties of a class give, made with its defaults: a filter's own patterns."""
    names = [name for name, value in vars(kind).items() if isinstance(value, cached_property)]
    if names and issubclass(kind, BaseModel) and not any(field.is_required() for field in kind.model_fields.values()):
        made = kind()
        yield from (getattr(made, name) for name in names)


def _in_code(source: str) -> Iterator[tuple[int, re.Pattern[Any], str]]:
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLS):
            continue
        if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "re") or node.func.attr == "compile":
            continue
        literal = node.args[0]
        if isinstance(literal, ast.Constant) and isinstance(literal.value, str | bytes):
            yield node.lineno, re.compile(literal.value), node.func.attr


def pumped(pattern: re.Pattern[Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (beginning, part to repeat, end) of texts that lead a pattern into as much work as it can make of them.

    The beginnings are what the pattern matches up to each of its parts; what is repeated, its parts' own texts; the end
    is a character that matches nothing, so that every way of matching is tried.
    """
    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    pieces: list[str] = []
    characters: dict[str, None] = {}
    tree = parser.parse(text, pattern.flags)
    beginnings, so_far = [""], ""
    for part in tree:
        if part[0] is not constants.LITERAL:
            beginnings.append(so_far)
        so_far += _text_of([part], pieces, characters)
    beginnings.append(so_far)
    parts = [one for one in dict.fromkeys([*pieces, *characters]) if one][:MOST_PARTS]
    for beginning in list(dict.fromkeys(beginnings))[:MOST_BEGINNINGS]:
        for part in parts:
            for end in ("", "\x01"):
                yield beginning, part, end


def _text_of(tree: Any, pieces: list[str], characters: dict[str, None]) -> str:
    """Return a text that a part of a pattern matches, and note the texts and characters of its own parts."""
    text = "".join(_one(operation, given, pieces, characters) for operation, given in tree)
    pieces.append(text)
    return text


def _one(operation: Any, given: Any, pieces: list[str], characters: dict[str, None]) -> str:
    text = ""
    match operation:
        case constants.LITERAL:
            text = chr(given)
        case constants.NOT_LITERAL:
            text = "a" if given != ord("a") else "b"
        case constants.ANY:
            text = "a"
        case constants.IN:
            return _members(given, characters)
        case constants.BRANCH:
            return [_text_of(branch, pieces, characters) for branch in given[1]][0]  # noqa: RUF015 - all are noted
        case constants.SUBPATTERN:
            return _text_of(given[3], pieces, characters)
        case constants.ASSERT | constants.ASSERT_NOT:
            _text_of(given[1], pieces, characters)
        case constants.ATOMIC_GROUP:
            return _text_of(given, pieces, characters)
        case constants.MAX_REPEAT | constants.MIN_REPEAT | constants.POSSESSIVE_REPEAT:
            repeats: int = max(1, min(given[0], 40))
            return _text_of(given[2], pieces, characters) * repeats
    if text:
        characters.setdefault(text)
    return text


def _members(given: Any, characters: dict[str, None]) -> str:
    own = []
    for operation, value in given:
        if operation is constants.LITERAL:
            own.append(chr(value))
        elif operation is constants.RANGE:
            own.append(chr(value[0]))
        elif operation is constants.CATEGORY:
            name = str(value).lower()
            own.append("1" if "digit" in name else " " if "space" in name else "a")
    for character in own[:6]:
        characters.setdefault(character)
    if given and given[0][0] is constants.NEGATE:
        other = next(c for c in "ab<1 -" if c not in own)
        characters.setdefault(other)
        return other
    return own[0] if own else ""

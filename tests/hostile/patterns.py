"""Every regular expression of the source code, found by looking: so a new one is tried without being named anywhere."""

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from re import _constants as constants  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from types import ModuleType
from typing import Any

import tasks
import training

# Reads this machine's own Python packages to make the sample's pages, nothing that a stranger wrote to us.
NOT_OUTSIDE = ("tasks.crawl.sample",)
MOST_ATOMS = 14
CALLS = ("compile", "search", "match", "fullmatch", "sub", "subn", "split", "findall", "finditer")


def modules() -> Iterator[ModuleType]:
    for package in (tasks, training):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.startswith(NOT_OUTSIDE) and not found.name.endswith("__main__"):
                yield importlib.import_module(found.name)


def patterns() -> dict[str, re.Pattern[Any]]:
    """Return every pattern that a module holds, in whatever it is kept, and every literal one in its code."""
    seen: dict[tuple[Any, int], str] = {}
    for module in modules():
        for name, value in vars(module).items():
            for pattern in _inside(value):
                seen.setdefault((pattern.pattern, pattern.flags), f"{module.__name__}.{name}")
        for line, pattern in _in_code(module):
            seen.setdefault((pattern.pattern, pattern.flags), f"{module.__name__}:{line}")
    return {f"{name} {text!r}"[:160]: re.compile(text, flags & ~re.UNICODE if isinstance(text, bytes) else flags)
            for (text, flags), name in seen.items()}  # fmt: skip


def _inside(value: object, depth: int = 0) -> Iterator[re.Pattern[Any]]:
    if isinstance(value, re.Pattern):
        yield value
    elif depth < 4:
        parts: Any = ()
        if isinstance(value, Mapping):
            parts = value.values()
        elif isinstance(value, list | tuple | set | frozenset):
            parts = value
        elif is_dataclass(value) and not isinstance(value, type):
            parts = [getattr(value, field.name, None) for field in fields(value)]
        elif isinstance(value, type) and value.__module__.startswith(("tasks.", "training.")):
            parts = vars(value).values()
        elif callable(value) and isinstance(getattr(value, "__self__", None), re.Pattern):
            yield value.__self__
        for part in list(parts)[:2000]:
            yield from _inside(part, depth + 1)


def _in_code(module: ModuleType) -> Iterator[tuple[int, re.Pattern[Any]]]:
    assert module.__file__ is not None
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLS):
            continue
        if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "re"):
            continue
        literal = node.args[0]
        if isinstance(literal, ast.Constant) and isinstance(literal.value, str | bytes):
            yield node.lineno, re.compile(literal.value)


def atoms(pattern: re.Pattern[Any]) -> list[str]:
    """Return short texts that a pattern's parts match, from which hostile inputs are made by repeating them."""
    found: dict[str, None] = {}
    pieces: list[str] = []

    def walk(tree: Any) -> str:
        text = ""
        for operation, given in tree:
            text += one(operation, given)
        if text:
            pieces.append(text)
        return text

    def one(operation: Any, given: Any) -> str:
        match operation:
            case constants.LITERAL:
                return keep(chr(given))
            case constants.NOT_LITERAL:
                return keep("a" if given != ord("a") else "b")
            case constants.ANY:
                return keep("a")
            case constants.IN:
                return members(given)
            case constants.BRANCH:
                texts = [walk(branch) for branch in given[1]]
                return texts[0]
            case constants.SUBPATTERN:
                return walk(given[3])
            case constants.ASSERT | constants.ASSERT_NOT:
                walk(given[1])
                return ""
            case constants.ATOMIC_GROUP:
                return walk(given)
            case constants.MAX_REPEAT | constants.MIN_REPEAT | constants.POSSESSIVE_REPEAT:
                return walk(given[2]) * max(1, min(given[0], 4))
            case _:
                return ""

    def members(given: Any) -> str:
        negated = bool(given) and given[0][0] is constants.NEGATE
        own = []
        for operation, value in given:
            if operation is constants.LITERAL:
                own.append(chr(value))
            elif operation is constants.RANGE:
                own.append(chr(value[0]))
            elif operation is constants.CATEGORY:
                name = str(value).lower()
                own.append("1" if "digit" in name else " " if "space" in name else "a")
        for character in own:
            keep(character)
        if negated:
            return keep(next(c for c in "ab<1 -" if c not in own))
        return own[0] if own else ""

    def keep(character: str) -> str:
        found.setdefault(character)
        return character

    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    whole = walk(parser.parse(text, pattern.flags & ~re.UNICODE & ~re.DEBUG if False else pattern.flags))
    ordered = [whole, *pieces, *found]
    return [atom for atom in dict.fromkeys(ordered) if atom][:MOST_ATOMS]

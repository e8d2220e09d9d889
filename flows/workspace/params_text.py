"""Changes values in the text of a YAML file of settings, and nothing else in it.

A value is replaced where it stands, between the marks that the parser gives, so that every comment, blank line and
other value keeps its place. Comments that stand inside a replaced list speak of what is gone, and go with it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode

LINE = 120
INDENT = "  "
NEWLINE = "\n"
_WORD = re.compile(r"[A-Za-z0-9_./](?:[A-Za-z0-9_./*@%+=~-]| (?=[A-Za-z0-9_./]))*")
"""What stands without quotes: such a text is one word to YAML 1.1 and 1.2, inside brackets and outside."""


Edit = tuple[int, int, str]
"""Where the text that goes begins and ends, and what comes in its place."""


def with_changes(text: str, changes: Mapping[str, Any]) -> str:
    """Return the text with nested values changed or added; a mapping is merged into the one that stands there.

    What stands there in a form in which single values cannot be replaced (an alias, a merged mapping) may come out
    wrong: whoever calls this reads the new text and compares.
    """
    root = YAML().compose(StringIO(text))
    if root is None:
        return f"{text}{'' if not text or text.endswith(NEWLINE) else NEWLINE}{_rendered(changes)}{NEWLINE}"
    edits = sorted(enumerate(_edits(text, root, YAML(typ="safe", pure=True).load(text), changes)), key=_place)
    for _, (begin, end, new) in reversed(edits):
        text = text[:begin] + new + text[end:]
    return text


def _place(numbered: tuple[int, Edit]) -> tuple[int, int]:
    return numbered[1][0], numbered[0]


def _edits(
    text: str, node: Node, there: Mapping[str, Any], changes: Mapping[str, Any], in_flow: bool = False
) -> Iterator[Edit]:
    """Yield the edits of a mapping; those at one place in the order in which their texts are to stand."""
    entries = {key.value: (key, value) for key, value in node.value}
    in_flow = in_flow or _is_flow(node)
    for name, value in changes.items():
        if name not in entries:
            yield _added(text, node, name, value)
            continue
        key, old = entries[name]
        if isinstance(value, Mapping) and isinstance(old, MappingNode) and old.value:
            yield from _edits(text, old, there.get(name, {}), value, in_flow)
        elif repr(there.get(name)) == repr(value):
            continue
        elif in_flow:
            begin, end = _span(text, key, old)
            yield begin, end, ("" if text[begin - 1].isspace() else " ") + _flow(value)
        else:
            yield from _replaced(text, key, old, value)


def _added(text: str, node: Node, key: str, value: Any) -> Edit:
    """Return what adds an entry behind the last one of a mapping that has some."""
    behind = _end(text, node.value[-1][1])
    if _is_flow(node):
        return behind, behind, f", {_flow(key)}: {_flow(value)}"
    behind = _line_end(text, behind)
    return behind, behind, "\n" + _indented(_rendered({key: value}), node.value[0][0].start_mark.column)


def _replaced(text: str, key: Node, old: Node, value: Any) -> Iterator[Edit]:
    """Yield what puts a value in another one's place, in a mapping that is written an entry a line."""
    rendered = _rendered({key.value: value}).removeprefix(f"{_flow(key.value)}:")
    lines = "\n" + _indented(rendered[1:], key.start_mark.column) if rendered.startswith("\n") else ""
    begin, end = _span(text, key, old)
    colon = text.index(":", key.end_mark.index) + 1
    if "\n" in text[colon:begin]:
        # What stood in lines of its own goes with them; a comment beside the key stays there.
        yield colon, colon, "" if lines else rendered
        yield text.rindex("\n", 0, begin), _line_end(text, end), lines
    else:
        beside = _line_end(text, end)
        comment = text[end:beside].lstrip(" ")
        if comment and not lines:
            # Comments that stand below each other stay so, where there is room.
            rendered = f"{rendered}  ".ljust(beside - len(comment) - colon) + comment
            yield colon, beside, rendered
        else:
            yield colon, end, "" if lines else rendered
            yield beside, beside, lines


def _span(text: str, key: Node, value: Node) -> tuple[int, int]:
    """Return where an entry's value begins and ends; one that is not written at all, behind the key's colon."""
    begin, end = int(value.start_mark.index), _end(text, value)
    if begin >= end:
        begin = end = text.index(":", key.end_mark.index) + 1
    return begin, end


def _is_flow(node: Node) -> bool:
    return isinstance(node, CollectionNode) and bool(node.flow_style)


def _end(text: str, node: Node) -> int:
    """Return where a node's own text ends; a parser says where the next one begins, behind blank lines and comments."""
    if not isinstance(node, ScalarNode) and not _is_flow(node) and node.value:
        last = node.value[-1]
        return _end(text, last[1] if isinstance(node, MappingNode) else last)
    begin = int(node.start_mark.index)
    return begin + len(text[begin : node.end_mark.index].rstrip())


def _line_end(text: str, place: int) -> int:
    end = text.find("\n", place)
    return len(text) if end < 0 else end


def _indented(lines: str, column: int) -> str:
    return "\n".join(" " * column + line for line in lines.split("\n"))


def _rendered(pair: Mapping[str, Any]) -> str:
    """Return an entry in lines; short values stand beside their keys."""
    return "\n".join(_block(pair, LINE))


def _block(value: Any, width: int) -> list[str]:
    """Return a mapping or list in lines, an entry each; an entry that fits into `width` characters takes one."""
    lines: list[str] = []
    for entry in value.items() if isinstance(value, Mapping) else value:
        head, inner = (f"{_flow(entry[0])}:", entry[1]) if isinstance(value, Mapping) else ("-", entry)
        flat = f"{head} {_flow(inner)}"
        if len(flat) <= width or not isinstance(inner, Mapping | list | tuple) or not inner:
            lines.append(flat)
            continue
        nested = _block(inner, width - len(INDENT))
        if head == "-":
            lines += [f"- {nested[0]}", *(INDENT + line for line in nested[1:])]
        else:
            lines += [head, *(INDENT + line for line in nested)]
    return lines


def _flow(value: Any) -> str:
    """Return a value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str):
        return value if _is_word(value) else _quoted(value)
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return json.dumps(value)


def _is_word(text: str) -> bool:
    return bool(_WORD.fullmatch(text)) and all(YAML(typ="safe", pure=pure).load(text) == text for pure in (True, False))


def _quoted(text: str) -> str:
    """Return a text in double quotes, with what cannot be seen as escapes (YAML 1.2, section 5.7)."""
    escaped = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else _escape(ord(c)) for c in escaped)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

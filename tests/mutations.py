"""Single changes of a folder that a check must find: bits, lengths, swaps, missing and added files, numbers in JSON."""

from __future__ import annotations

import random
import re
from pathlib import Path

KINDS = ("bit flip", "truncation", "swap", "missing", "added", "edited number")
_NUMBER = re.compile(rb'(?<![\w."])\d+(?![\w"])|(?<=: ")[0-9a-f]{64}(?=")')


def mutate(folder: Path, generator: random.Random, *, only: str | None = None, kind: str | None = None) -> str:
    """Change one thing in a folder and say what; the folder is another one afterwards.

    Args:
        only: the one file to change; by default any.
        kind: one of KINDS; by default any that the folder allows.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file() and (only is None or p.name == only))
    while True:
        chosen = kind or generator.choice(KINDS)
        path = generator.choice(files)
        content = path.read_bytes()
        name = path.relative_to(folder).as_posix()
        if chosen == "added":
            new = path.with_name(f"{path.name}.{generator.choice(('bak', 'json', 'txt'))}")
            new.write_bytes(content)
            return f"added: {new.relative_to(folder).as_posix()}"
        if chosen == "missing":
            path.unlink()
            return f"missing: {name}"
        if chosen == "swap":
            other = generator.choice(sorted(p for p in folder.rglob("*") if p.is_file()))
            theirs = other.read_bytes()
            if theirs == content:
                continue
            _replace(path, theirs)
            _replace(other, content)
            return f"swap: {name} and {other.relative_to(folder).as_posix()}"
        changed = _changed(content, chosen, generator, is_json=path.suffix == ".json")
        if changed is not None and changed != content:
            _replace(path, changed)
            return f"{chosen}: {name}"


def _changed(content: bytes, kind: str, generator: random.Random, *, is_json: bool) -> bytes | None:
    """Return the changed bytes; None where this kind does not apply."""
    if not content:
        return None
    if kind == "truncation":
        return content[: generator.randrange(len(content))]
    if kind == "bit flip":
        changed = bytearray(content)
        changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
        return bytes(changed)
    numbers = list(_NUMBER.finditer(content)) if is_json else []
    if not numbers:
        return None
    found = generator.choice(numbers)
    text = found[0]
    at = generator.randrange(len(text))
    digit = bytes([generator.choice([c for c in b"123456789" if c != text[at]])])
    return content[: found.start()] + text[:at] + digit + text[at + 1 :] + content[found.end() :]


def _replace(path: Path, content: bytes) -> None:
    """Write a file anew, so that a hard link to the old one keeps its bytes."""
    path.unlink()
    path.write_bytes(content)

"""/.well-known/tdmrep.json: which pages of a host reserve text and data mining (TDMRep, W3C community report of 2024).

The file is a list of rules by the report. What hosts also write is read as well: one rule alone, rules inside an
object, another number or a word for 1, locations as whole addresses or escaped otherwise, none (also as null) for the
whole host. A name that stands twice in a rule reserves if one of its values does.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from tasks.contracts.text_files import json_value
from tasks.rights.robots import matches, pattern_path, url_path

_NAME = "tdm-reservation"


def reserved(value: object) -> bool:
    """Tell whether a `tdm-reservation` reserves: 1, however it is written, also as one of several.

    >>> [reserved(value) for value in (1, 1.0, True, '"1"', "1", " 1.0 ", "true", "0, 1", 0, "0", None, "no", [1])]
    [True, True, True, True, True, True, True, True, False, False, False, False, False]
    """
    if isinstance(value, (bool, int, float)):
        return value == 1
    return isinstance(value, str) and any(
        _is_one(part.strip(" \t\r\n\"'/").lower()) for part in value[:1000].split(",")
    )


def _is_one(text: str) -> bool:
    if text in ("true", "yes"):
        return True
    try:
        return float(text) == 1
    except ValueError:
        return False


def reservation_of(content: bytes, url: str) -> str | None:
    """Return the TDM policy's URL ("" for none) where the file reserves a page, else None.

    The longest matching location decides, a reservation at equal length (section 6.1, which takes its patterns from
    robots.txt).
    """
    path = url_path(url)
    for (_, reserves, policy), pattern in _entries(content):
        if matches(pattern, path):
            return policy if reserves else None
    return None


@lru_cache(maxsize=8)  # a host's file is asked about each of its pages
def _entries(content: bytes) -> tuple[tuple[tuple[int, bool, str], str], ...]:
    """Return the rules by rank, the deciding one first: (length, reserved, policy), pattern."""
    try:
        found = json_value(content, object_pairs_hook=_object)
    except ValueError:
        return ()
    ranked = []
    for location, rule in _rules(found):
        pattern = pattern_path(_path(location))
        rank = len(pattern), reserved(rule.get(_NAME)), str(rule.get("tdm-policy") or "")
        ranked.append((rank, pattern))
    return tuple(sorted(ranked, reverse=True))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    reserving = [value for name, value in pairs if _folded(name) == _NAME and reserved(value)]
    told = {name: value for name, value in pairs if not reserving or _folded(name) != _NAME}
    return told | {_NAME: reserving[0]} if reserving else told


def _folded(name: str) -> str:
    return name.strip().lower().replace("_", "-")


def _rules(found: Any, location: str = "/", depth: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (location, rule) of every rule in a list, in an object, or in an object of lists and objects."""
    if isinstance(found, list):
        for one in found:
            if isinstance(one, (dict, list)) and depth < 3:
                yield from _rules(one, location, depth + 1)
    elif isinstance(found, dict):
        rule = {_folded(key): value for key, value in found.items()}
        if _NAME in rule or "location" in rule:
            places = location if rule.get("location") is None else rule["location"]
            for place in places if isinstance(places, list) else [places]:
                if isinstance(place, str):
                    yield place, rule
        elif depth < 3:
            for key, value in found.items():
                if isinstance(value, (dict, list)):
                    yield from _rules(value, key if key.startswith(("/", "*")) else location, depth + 1)


def _path(location: str) -> str:
    """Return a location's path; one that is a whole address stands for its path."""
    location = location.strip()
    if not location.lower().startswith(("http://", "https://")):
        return location or "/"
    try:
        parts = urlsplit(location)
    except ValueError:
        return location
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

"""What a person types after `--set`: a name, `=` and a value, which need no quotes but the shell's.

The value is YAML on one line, with one difference: a word that YAML does not take as a word (it has `: `, ` #`, or
begins with `*`, `&`, `@` …) is the text that was typed, and not an error, a comment or an alias.
"""

from __future__ import annotations

import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.contracts.errors import HeadwaterError, ParamsError

_PAIRS = {"[": "]", "{": "}"}
_TYPED = re.compile(r"[-+.\w]+|~")  # what may be a number, true, false or null
_BLANK = re.compile(r"\s*")
_KEY = re.compile(r"([^\s,{}\[\]\"'](?:[^,{}\[\]]*?[^\s,{}\[\]])??)\s*:(?=[\s\[{\"',}]|$)")
_ONE_PAIR = re.compile(r"\w+\s*:\s+(?=[\[{])")  # an item of a list, as in [length: {min_words: 5}]


def split_assignment(assignment: str, expected: str, error: type[HeadwaterError] = ParamsError) -> tuple[str, Any]:
    """Return the name and the value of `NAME=VALUE`.

    Args:
        expected: the form that the error shows, such as "SECTION.KEY=VALUE".
        error: what is raised.

    Raises:
        HeadwaterError: there is no name, no `=`, or brackets and quotes do not close.

    >>> split_assignment("crawl.seeds=[https://example.org/?q=1#top, *.example.org]", "SECTION.KEY=VALUE")
    ('crawl.seeds', ['https://example.org/?q=1#top', '*.example.org'])
    """
    name, equals, text = assignment.partition("=")
    try:
        if not equals or not name.strip():
            raise ValueError("there is no name before an equals sign")
        assignment.encode()
        return name.strip(), read_value(text)
    except (ValueError, YAMLError) as wrong:
        raise error(
            "a setting cannot be read",
            expected=f"{expected}, in the shell's single quotes where the value has blanks, brackets or quotes",
            found=f"{ascii(assignment)[1:-1]}: {str(wrong).splitlines()[0]}",
        ) from wrong


def read_value(text: str) -> Any:
    """Return the value that a person typed.

    Raises:
        ValueError: brackets and quotes do not close, or something stands behind them.
        YAMLError: a text in quotes, or of several lines, is not YAML.

    >>> read_value("3"), read_value("null"), read_value(""), read_value("C# on: me")
    (3, None, None, 'C# on: me')
    >>> read_value("[{length: {min_words: 5}}, 'a, b', pages[0-9].gz]")
    [{'length': {'min_words': 5}}, 'a, b', 'pages[0-9].gz']
    """
    text = text.strip()
    if "\n" in text:
        return _plain_yaml(text)
    reader = _Reader(text)
    value = reader.value("")
    if reader.place < len(text):
        raise ValueError(f"nothing was expected behind {text[: reader.place]!r}")
    return value


class _Reader:
    """Reads one value from a place in a text on, and stops behind it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0

    def value(self, ends: str) -> Any:
        """Return the value that begins here; a word goes on to one of the characters in `ends`, or to the end."""
        first = self._next()
        if first == "[":
            return self._items()
        if first == "{":
            return dict(self._pairs())
        if ends == ",]" and _ONE_PAIR.match(self.text, self.place):
            return {self._key(): self.value(ends)}
        if first in ("'", '"'):
            quoted = self._quoted(first)
            if (following := self._next()) and following not in ends:
                raise ValueError(f"{following!r} stands behind the quoted text {quoted}")
            return _plain_yaml(quoted)
        return _typed(self._word(ends))

    def _next(self) -> str:
        """Return the next character that is no blank, "" at the end."""
        blank = _BLANK.match(self.text, self.place)
        self.place = blank.end() if blank else self.place
        return self.text[self.place : self.place + 1]

    def _items(self) -> list[Any]:
        items: list[Any] = []
        self.place += 1
        while (first := self._next()) != "]":
            if first and first in ",}":
                raise ValueError(f"a value was expected, not {first!r}")
            items.append(self.value(",]"))
            self._separator("]")
        self.place += 1
        return items

    def _pairs(self) -> list[tuple[str, Any]]:
        pairs: list[tuple[str, Any]] = []
        self.place += 1
        while self._next() != "}":
            pairs.append((self._key(), self.value(",}")))
            self._separator("}")
        self.place += 1
        return pairs

    def _key(self) -> str:
        """Return the key that begins here, and stop behind its colon."""
        first = self._next()
        if first and first in "'\"":
            key = str(_plain_yaml(self._quoted(first)))
            found = re.compile(r"\s*:").match(self.text, self.place)
        else:
            found = _KEY.match(self.text, self.place)
            key = found[1] if found else ""
        if found is None:
            raise ValueError(f"KEY: VALUE was expected, not {self.text[self.place :][:40]!r}")
        self.place = found.end()
        return key

    def _separator(self, closing: str) -> None:
        following = self._next()
        if following == ",":
            self.place += 1
        elif following != closing:
            raise ValueError(f"{closing!r} is missing")

    def _quoted(self, quote: str) -> str:
        pattern = r"'(?:[^']|'')*'" if quote == "'" else r'"(?:[^"\\]|\\.)*"'
        found = re.compile(pattern).match(self.text, self.place)
        if found is None:
            raise ValueError(f"the quote {quote} does not close")
        self.place = found.end()
        return found[0]

    def _word(self, ends: str) -> str:
        """Return a word up to one of `ends`; brackets inside a word, as in `http://[::1]/`, belong to it in pairs."""
        start, open_brackets = self.place, list[str]()
        while self.place < len(self.text):
            character = self.text[self.place]
            if open_brackets and character == open_brackets[-1]:
                open_brackets.pop()
            elif not open_brackets and character in ends:
                break
            elif ends and character in _PAIRS:
                open_brackets.append(_PAIRS[character])
            self.place += 1
        if open_brackets:
            raise ValueError(f"{open_brackets[-1]!r} is missing")
        return self.text[start : self.place].strip()


def _typed(word: str) -> Any:
    """Return a word as YAML types it: a number, true, false, null; any other word is text."""
    if not word:
        return None
    value = _plain_yaml(word) if _TYPED.fullmatch(word) else word
    return value if isinstance(value, bool | int | float | None) else word


def _plain_yaml(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)

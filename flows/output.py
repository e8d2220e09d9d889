"""The one way to a person's terminal: what every command prints, and what a run logs, goes through here.

URLs, titles, file names and rules' details are written by strangers. A terminal obeys what stands in them (it clears
itself, moves up and writes over a verdict, turns the order of letters round), so such characters are shown as escapes.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.style import Style
from rich.text import Text as RichText

from tasks.contracts.redaction import without_secrets

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
"""What every command takes that a script may call."""

_OBEYED = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but for tab and line feed, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # which way text runs (Unicode Annex 9)
    "\u2028\u2029\ufff9-\ufffb"  # line and paragraph separators, annotations
    "\ud800-\udfff"  # half a character, which no terminal can be sent
    "\U000e0000-\U000e007f"  # tags: letters that nobody sees
    "]"
)


def visible(text: str) -> str:
    """Return a text with what a terminal would obey as escapes; tabs and line feeds stay.

    >>> visible("page\\x1b[2J\\r.html \\u202efdp\\n"), visible("caf\\u00e9 \\ud83d")
    ('page\\\\x1b[2J\\\\x0d.html \\\\u202efdp\\n', 'café \\\\ud83d')
    """
    return _OBEYED.sub(_escape, text)


def one_line(text: str) -> str:
    r"""Return a text from outside for one line: its line feeds and tabs as escapes too.

    >>> one_line("good\nPASS")
    'good\\nPASS'
    """
    return visible(text.replace("\n", "\\n").replace("\t", "\\t"))


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class Text(RichText):
    """rich's Text, of `visible` characters: its own takes some control characters out, and lets others pass."""

    def __init__(self, text: str = "", *arguments: Any, **options: Any) -> None:
        super().__init__(visible(text), *arguments, **options)

    @classmethod
    def assemble(cls, *parts: Any, **options: Any) -> Text:
        """Return a text made of several, each with its style."""
        made = super().assemble(*parts, **options)
        assert isinstance(made, Text), "rich makes one of this class"
        return made

    def append(self, text: RichText | str, style: str | Style | None = None) -> Text:
        """Append a text; `assemble` is made of this."""
        super().append(visible(text) if isinstance(text, str) else text, style)
        return self


class Terminal(Console):
    """A console that reads no mark-up in what it prints, and whose every text is `visible`; Text carries styles."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield what is printed; only rich's own codes pass as they are."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)

    def render_str(self, text: str, **options: Any) -> Any:
        """Return a string as Text, `visible` before rich measures it."""
        return super().render_str(visible(text), **options)

    def json(self, value: Any, *, default: Callable[[Any], Any] | None = None) -> None:
        """Print a value for scripts; all but ASCII stands in it as escapes, which give the same text back."""
        self.file.write(json.dumps(value, indent=2, ensure_ascii=True, default=default) + "\n")

    def lines(self, text: str) -> None:
        """Print a finished text, in the lines that it has."""
        self.print(text, soft_wrap=True)


class VisibleFormatter(logging.Formatter):
    """Formats log lines for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, traceback included, `visible` and without secrets."""
        return visible(without_secrets(super().format(record)))


console = Terminal()
errors = Terminal(stderr=True)

"""What the child process is asked and what it answers. Light to import: the parent needs no parser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

EngineName = Literal["trafilatura", "resiliparse", "justext", "combined"]
Mode = Literal["default", "precision", "recall", "fast"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to extract: the part of the stage's params that the child process needs."""

    engine: EngineName = "combined"
    mode: Mode = "default"
    tables: bool = True
    comments: bool = False
    language_by_line: bool = False
    robot: tuple[str, ...] = ()
    """Names of the crawl's own robot, in lower case: meta elements may address it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """What a page gave; `text` is empty when nothing was found.

    Attributes:
        published: the day of publication that the page names, "2026-01-31".
        line_languages: the share of the text in each language, line by line, where the settings ask for it.
    """

    text: str
    title: str | None = None
    author: str | None = None
    published: str | None = None
    license: str | None = None
    opt_out: tuple[str, ...] = ()
    language: str | None = None
    language_score: float | None = None
    line_languages: Mapping[str, float] = field(default_factory=dict)
    truncated_depth: bool = False

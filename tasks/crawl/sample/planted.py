"""Pages planted so that each later stage has something to catch; every person, number and question here is made up."""

from __future__ import annotations

from tasks.crawl.sample.pages import Page


def planted_pages() -> list[Page]:
    """Return the planted pages."""
    return []

"""Builds the whole sample site, the packages spread over processes."""

from __future__ import annotations

from tasks.crawl.processes import run_in_processes
from tasks.crawl.sample.modules import PACKAGES, read_readmes
from tasks.crawl.sample.pages import SamplePage, package_pages, readme_pages
from tasks.crawl.sample.planted import mirror_pages, planted_pages


def build_pages(processes: int) -> list[SamplePage]:
    """Return every page, sorted by URL: the same list whatever the number of processes."""
    names: list[str | None] = [None, *sorted(PACKAGES, key=lambda name: (-PACKAGES[name], name))]
    count = max(1, min(processes, 8))
    pages = [
        page for built in run_in_processes(build_some, [names[at::count] for at in range(count)]) for page in built
    ]
    pages = sorted(pages, key=lambda page: page.url)
    return sorted([*pages, *mirror_pages(pages)], key=lambda page: page.url)


def build_some(names: list[str | None]) -> list[SamplePage]:
    """Build the pages of some packages; None stands for the hosts that are of no one package."""
    pages: list[SamplePage] = []
    for name in names:
        if name is None:
            pages += [*readme_pages(read_readmes()), *planted_pages()]
        else:
            pages += package_pages(name, PACKAGES[name])
    return pages

"""Builds the whole sample site, the packages spread over processes, and keeps it for the next crawl."""

from __future__ import annotations

import logging
import sys
import sysconfig
from dataclasses import asdict
from pathlib import Path

import orjson

from tasks.contracts.code_hash import code_hash
from tasks.contracts.durable_files import sha256_json, write_bytes
from tasks.contracts.workspace import state_folder
from tasks.crawl.processes import run_in_processes
from tasks.crawl.sample.modules import PACKAGES, read_readmes
from tasks.crawl.sample.pages import SamplePage, package_pages, readme_pages
from tasks.crawl.sample.planted import mirror_pages, planted_pages

logger = logging.getLogger(__name__)

BYTES = "latin-1"  # each byte is one character of it, so JSON can hold a body


def kept_pages(processes: int) -> list[SamplePage]:
    """Return every page, sorted by URL: as an earlier crawl of this workspace built them, where they are the same.

    Building them reads and renders 8 MB of source, for some ten seconds of a processor. What was built is for this
    code, this Python and these distributions as they were installed; a change to an installed file by hand is not seen.
    """
    path = state_folder() / "crawl" / f"sample-{_installed()[:32]}.json"
    try:
        rows = orjson.loads(path.read_bytes())
        return [SamplePage(**{**row, "body": row["body"].encode(BYTES)}) for row in rows]
    except FileNotFoundError:
        pass
    except (ValueError, TypeError, KeyError) as error:
        logger.warning("%s is damaged (%s): the sample is built again", path, type(error).__name__)
    pages = build_pages(processes)
    write_bytes(path, orjson.dumps([{**asdict(page), "body": page.body.decode(BYTES)} for page in pages]))
    return pages


def _installed() -> str:
    """Return a digest of what the pages are made from: this code, this Python and the installed distributions."""
    metadata = Path(sysconfig.get_path("purelib")).glob("*.dist-info")
    distributions = sorted((folder.name, folder.stat().st_mtime_ns) for folder in metadata)
    return sha256_json([code_hash("tasks.crawl.sample"), sys.version, [[*one] for one in distributions]])


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

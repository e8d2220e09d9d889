"""The opt-out evidence of a crawl, judged again under any policy: what would be dropped, marked or kept now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from os import sched_getaffinity
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast

from tasks.contracts.document import DOCUMENT_SCHEMA, make_doc_id, open_shard, read_documents
from tasks.contracts.errors import ManifestError
from tasks.contracts.files import DROPPED_FOLDER, is_part
from tasks.contracts.ledger import read_ledger
from tasks.contracts.manifest import manifest_hash, read_manifest
from tasks.rights.evidence import OWN_CRAWLS, Action, OptOutPolicy, html_signals, judge
from tasks.rights.robots import names_of

Kind = Literal["newly_dropped", "newly_kept", "newly_marked", "no_longer_marked"]
KINDS: dict[Kind, str] = {
    "newly_dropped": "newly dropped",
    "newly_kept": "newly kept",
    "newly_marked": "newly marked",
    "no_longer_marked": "no longer marked",
}
ACTIONS = ("drop", "mark", "keep")
# Starting a process takes as long as judging about so many compressed bytes.
_WORKER_BYTES = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One page that another policy treats otherwise than data/extract did.

    Attributes:
        signals: what asks for it: the signals behind the new action, or those behind the old one where the new
            policy asks for nothing.
    """

    kind: Kind
    url: str
    host: str
    doc_id: str
    record_id: str
    before: Action
    after: Action
    signals: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What one look at the evidence found.

    Attributes:
        pages: captured pages that were judged.
        reserving: those of them with any signal.
        gone: those that extract dropped for another reason, which no policy brings back.
    """

    pages: int
    reserving: int
    gone: int
    changes: tuple[Change, ...]


def check_policy(crawl: Path, extract: Path, policy: OptOutPolicy) -> Checked:
    """Judge every captured page under `policy` and compare with what `extract` holds.

    Raises:
        ManifestError: a folder has no manifest, or extract was not made from this crawl.
    """
    captured, made = read_manifest(crawl), read_manifest(extract)
    if made.inputs.get("crawl") != manifest_hash(crawl):
        raise ManifestError(
            "data/extract was not made from the crawl beside it",
            where=str(extract),
            expected=manifest_hash(crawl),
            found=made.inputs.get("crawl", "no crawl"),
            fix="run `headwater run --until extract` first",
        )
    names = [s.name for s in captured.shards if is_part(s.name, ".warc.gz", ".parquet")]
    source, user_agent = (str(captured.params.get(name) or "") for name in ("source", "user_agent"))
    parts = [crawl / name for name in names]
    # Imported here, as it loads a reader of WARC files.
    from tasks.extract.host_files import collect

    with TemporaryDirectory(prefix="headwater-") as folder:
        warcs = [part for part in parts if part.suffix == ".gz"] if source in OWN_CRAWLS else []
        look = partial(
            _check_part,
            extract=extract,
            source=source or "web",
            max_bytes=cast(int, made.params["max_page_bytes"]),
            policy=policy.of_crawl(user_agent),
            robot=names_of(user_agent),
            host_files=collect(warcs, Path(folder)),
        )
        found = _look_at(parts, look)
    return Checked(
        pages=sum(one.pages for one in found),
        reserving=sum(one.reserving for one in found),
        gone=sum(one.gone for one in found),
        changes=tuple(change for one in found for change in one.changes),
    )


def _look_at(parts: Sequence[Path], look: Callable[[Path], Checked]) -> list[Checked]:
    size = sum(part.stat().st_size for part in parts)
    workers = min(len(parts), len(sched_getaffinity(0)), 1 + size // _WORKER_BYTES)
    if workers > 1:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            return list(pool.map(look, parts))
    return [look(part) for part in parts]


@dataclass(frozen=True, slots=True)
class _Captured:
    """A page as it is judged."""

    url: str
    host: str
    doc_id: str
    record_id: str
    signals: tuple[str, ...]


def _check_part(
    part: Path,
    *,
    extract: Path,
    source: str,
    max_bytes: int,
    policy: OptOutPolicy,
    robot: tuple[str, ...],
    host_files: Mapping[Path, Path],
) -> Checked:
    name = f"{part.name.partition('.')[0]}.parquet"
    before = _what_extract_did(extract, name)
    pages = reserving = gone = 0
    changes: list[Change] = []
    for page in _captured(part, source, max_bytes, robot, host_files.get(part)):
        pages += 1
        reserving += bool(page.signals)
        if page.doc_id not in before:
            gone += 1
            continue
        old, said = before[page.doc_id]
        verdict = judge(page.signals, policy)
        if (kind := _kind(old, verdict.action)) is not None:
            changes.append(
                Change(
                    kind=kind,
                    url=page.url,
                    host=page.host,
                    doc_id=page.doc_id,
                    record_id=page.record_id,
                    before=old,
                    after=verdict.action,
                    signals=tuple(map(str, verdict.because)) if verdict.action != "keep" else said,
                )
            )
    return Checked(pages=pages, reserving=reserving, gone=gone, changes=tuple(changes))


def _captured(
    part: Path, source: str, max_bytes: int, robot: tuple[str, ...], host_files: Path | None
) -> Iterator[_Captured]:
    """Yield the pages of one part of the crawl with their signals, read as extract reads them."""
    if part.suffix == ".parquet":
        for document in read_documents(part):
            yield _Captured(document.url, document.host, document.doc_id, document.record_id, document.opt_out)
        return
    # Imported here, as they load the decoders of pages.
    from tasks.contracts.charset import decode
    from tasks.extract.warc_pages import read_pages

    for page in read_pages(part, max_bytes, host_files):
        if page.reason is None:
            html, _ = decode(page.body, page.content_type)
            signals = tuple(sorted({*page.signals, *map(str, html_signals(html, robot))}))
            yield _Captured(page.url, page.host, make_doc_id(source, page.record_id), page.record_id, signals)


def _what_extract_did(extract: Path, name: str) -> dict[str, tuple[Action, tuple[str, ...]]]:
    """Return doc_id → what the stage made of its signals, and which; a document that went otherwise is left out."""
    with open_shard(extract / name, DOCUMENT_SCHEMA) as shard:
        ids = shard.read(columns=["doc_id"])["doc_id"].to_pylist()
    found: dict[str, tuple[Action, tuple[str, ...]]] = dict.fromkeys(ids, ("keep", ()))
    for row in read_ledger(extract / DROPPED_FOLDER / name):
        if row.rule == "opt_out" and row.doc_id is not None:
            found[row.doc_id] = ("drop" if row.action == "drop" else "mark", tuple((row.detail or "").split(", ")))
    return found


def _kind(before: Action, after: Action) -> Kind | None:
    if before == after:
        return None
    if after == "drop":
        return "newly_dropped"
    if before == "drop":
        return "newly_kept"
    return "newly_marked" if after == "mark" else "no_longer_marked"


def as_dict(result: Checked) -> dict[str, Any]:
    """Return a result as JSON for scripts: counts by signal and host, and every page, for each kind of change."""
    kinds: dict[str, Any] = {}
    for kind in KINDS:
        changes = [change for change in result.changes if change.kind == kind]
        kinds[kind] = {
            "pages": len(changes),
            "by_signal": _counted(signal for change in changes for signal in change.signals),
            "by_host": _counted(change.host for change in changes),
            "changes": [
                {
                    "url": change.url,
                    "doc_id": change.doc_id,
                    "record_id": change.record_id,
                    "before": change.before,
                    "after": change.after,
                    "signals": list(change.signals),
                }
                for change in changes
            ],
        }
    return {
        "pages": result.pages,
        "reserving": result.reserving,
        "dropped_otherwise": result.gone,
        "changes": len(result.changes),
        **kinds,
    }


def _counted(names: Iterator[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))

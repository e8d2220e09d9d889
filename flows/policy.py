"""`headwater policy check`: what another opt-out policy would change, from the evidence that the crawl stored.

Nothing is fetched and nothing is extracted: a page's reservations stand in its WARC metadata record, and what its HTML
said besides in the documents and the ledger of extract. Both are judged by the policy in force and by the other one.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import pyarrow.parquet as pq
import typer
from fastwarc.warc import ArchiveIterator, WarcRecordType
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.contracts.errors import InputError, ParamsError, UsageError
from tasks.contracts.evidence import CONTENT_TYPE, OptOutPolicy, Signal, judge, page_signals, read_evidence
from tasks.contracts.ledger import read_ledger
from tasks.contracts.manifest import read_manifest

app = typer.Typer(help="What pages reserve, judged again.", no_args_is_help=True)
console = Console(highlight=False)
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
MOST_EVIDENCE: Final = 1 << 20
EXAMPLES: Final = 5


@app.callback()
def _group() -> None:
    """Keep `check` a subcommand, though it is the only one."""


@app.command()
def check(
    policy: Annotated[Path | None, typer.Option(metavar="FILE", help="YAML with the keys of extract.opt_out.")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="SIGNAL=ACTION", help="robots_txt=keep, noindex=mark, …")
    ] = None,
    examples: Annotated[int, typer.Option(min=0, help="Pages shown for each change.")] = EXAMPLES,
    as_json: JsonOption = False,
) -> None:
    """Judge the stored evidence of every captured page by another policy, without fetching anything.

    Without --policy and --set: by params.yaml, against the policy that data/extract was made with. Exit code 0:
    nothing changes. 1: something would.

    Example: headwater policy check --set robots_txt=keep
    """
    applied = applied_policy()
    other = asked_policy(policy, sets or [])
    changes, pages, sources = compare(captured(), applied, other)
    answer = {
        "pages": pages,
        "evidence": sources,
        "policy_applied": applied.model_dump(mode="json"),
        "policy_checked": other.model_dump(mode="json"),
        "changes": {
            name: {
                "pages": len(found),
                "by_signal": dict(Counter(signal for one in found for signal in one["signals"]).most_common()),
                "by_host": dict(Counter(one["host"] for one in found).most_common()),
                "examples": found[:examples],
            }
            for name, found in changes.items()
        },
    }
    if as_json:
        print(json.dumps(answer, indent=2, ensure_ascii=False))  # noqa: T201
    else:
        _print(answer)
    if any(changes.values()):
        sys.exit(1)


def applied_policy(extract: Path = Path("data/extract")) -> OptOutPolicy:
    """Return the policy that data/extract was made with."""
    return OptOutPolicy.model_validate(read_manifest(extract).params.get("opt_out", {}))


def asked_policy(file: Path | None, sets: Iterable[str]) -> OptOutPolicy:
    """Return the policy to check: a file's or params.yaml's, with single actions replaced.

    Raises:
        ParamsError: a signal or an action that there is not.
    """
    if file is None:
        from flows.params import read_params

        found: Any = read_params().get("extract", {}).get("opt_out", {})
    else:
        try:
            found = YAML(typ="safe").load(file) or {}
        except (OSError, YAMLError) as error:
            raise InputError("the policy cannot be read", where=str(file), expected="YAML", found=str(error)) from error
        if isinstance(found, dict):
            found = found.get("extract", found)
            found = found.get("opt_out", found)
    settings = dict(found) if isinstance(found, dict) else {"policy": found}
    for assignment in sets:
        name, equals, action = assignment.partition("=")
        if not equals:
            raise UsageError("a setting cannot be read", expected="SIGNAL=ACTION", found=assignment)
        settings[name.strip()] = action.strip()
    try:
        return OptOutPolicy.model_validate(settings)
    except ValidationError as error:
        raise ParamsError(
            "this is not an opt-out policy",
            where=str(file or "extract.opt_out"),
            expected=", ".join(OptOutPolicy.model_fields) + ": drop, mark or keep",
            found="; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3]),
        ) from error


def captured(data: Path = Path("data")) -> Iterator[tuple[str, str, frozenset[str], str]]:
    """Yield each captured page: URL, host, its signals, and what they were read from."""
    later = _signals_of_extract(data / "extract")
    crawl = data / "crawl"
    for shard in read_manifest(crawl).shards:
        path = crawl / shard.name
        if not shard.name.startswith("part-"):
            continue
        if shard.name.endswith(".parquet"):
            for batch in pq.ParquetFile(path).iter_batches(columns=["url", "host", "opt_out"]):
                for row in batch.to_pylist():
                    yield row["url"], row["host"], frozenset(row["opt_out"]), "document"
        elif shard.name.endswith(".warc.gz"):
            yield from _pages_of(path, later)


def _pages_of(path: Path, later: Mapping[str, frozenset[str]]) -> Iterator[tuple[str, str, frozenset[str], str]]:
    kinds = WarcRecordType.response | WarcRecordType.resource | WarcRecordType.metadata
    stored: dict[str, frozenset[str]] = {}
    with path.open("rb") as stream:
        for record in ArchiveIterator(stream, record_types=kinds):
            if record.record_type == WarcRecordType.metadata:
                if record.headers.get("Content-Type") == CONTENT_TYPE:
                    seen = read_evidence(record.reader.read(MOST_EVIDENCE))
                    if seen is not None:
                        refers = record.headers.get("WARC-Refers-To") or ""
                        stored[refers] = frozenset(str(signal) for signal in seen.signals)
                continue
            name = record.record_id or ""
            url = (record.headers.get("WARC-Target-URI") or "").strip("<> ")
            status = record.http_headers.status_code if record.is_http and record.http_headers else None
            if status is not None and not 200 <= status < 300:
                continue
            evidence = stored.pop(name, None)
            source = "metadata record" if evidence is not None else "page"
            signals = evidence if evidence is not None else _from_page(record)
            yield url, _host(url), signals | later.get(name, frozenset()), source


def _from_page(record: Any) -> frozenset[str]:
    """Read a page of another archive, which has no metadata record: its headers (its HTML was read by extract)."""
    headers = record.http_headers.items() if record.is_http and record.http_headers else ()
    return frozenset(str(signal) for signal in page_signals(headers, ""))


def _signals_of_extract(folder: Path) -> dict[str, frozenset[str]]:
    """Return record id → the signals that extract saw, in documents that it kept and in ledger rows."""
    found: dict[str, frozenset[str]] = {}
    for shard in read_manifest(folder).shards:
        path = folder / shard.name
        if shard.name.startswith("dropped/"):
            for row in read_ledger(path):
                if row.rule == "opt_out" and row.record_id and row.detail:
                    found[row.record_id] = frozenset(row.detail.split(", "))
        elif shard.name.endswith(".parquet"):
            for batch in pq.ParquetFile(path).iter_batches(columns=["record_id", "opt_out"]):
                for row in batch.to_pylist():
                    if row["opt_out"]:
                        found[row["record_id"]] = frozenset(row["opt_out"])
    return found


def compare(
    pages: Iterable[tuple[str, str, frozenset[str], str]], applied: OptOutPolicy, other: OptOutPolicy
) -> tuple[dict[str, list[dict[str, Any]]], int, dict[str, int]]:
    """Return what changes from one policy to another (by name of the change), how many pages, and their evidence."""
    changes: dict[str, list[dict[str, Any]]] = {
        "newly_dropped": [],
        "newly_kept": [],
        "newly_marked": [],
        "unmarked": [],
    }
    sources: Counter[str] = Counter()
    count = 0
    for url, host, signals, source in pages:
        count += 1
        sources[source] += 1
        before, after = judge(sorted(signals), applied), judge(sorted(signals), other)
        if before.action == after.action:
            continue
        because: Iterable[Signal] = after.because or before.because
        change = {"url": url, "host": host, "from": before.action, "to": after.action}
        change |= {"signals": sorted({str(signal) for signal in because})}  # type: ignore[dict-item]
        if after.action == "drop":
            changes["newly_dropped"].append(change)
        elif before.action == "drop":
            changes["newly_kept"].append(change)
        else:
            changes["newly_marked" if after.action == "mark" else "unmarked"].append(change)
    return changes, count, dict(sorted(sources.items()))


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2].partition(":")[0].lower()


def _print(answer: dict[str, Any]) -> None:
    sources = ", ".join(f"{number:,} from the {name}" for name, number in answer["evidence"].items())
    console.print(f"{answer['pages']:,} captured pages judged again ({sources})", soft_wrap=True)
    for name, change in answer["changes"].items():
        if not change["pages"]:
            continue
        console.print(f"{name.replace('_', ' ')}: {change['pages']:,}")
        for what in ("by_signal", "by_host"):
            listed = ", ".join(f"{key} {number:,}" for key, number in list(change[what].items())[:8])
            console.print(escape(f"  {what.replace('_', ' ')}: {listed}"), soft_wrap=True)
        for one in change["examples"]:
            why = ", ".join(one["signals"])
            console.print(escape(f"  {one['from']} → {one['to']}  {one['url']}  ({why})"), soft_wrap=True)
    if not any(change["pages"] for change in answer["changes"].values()):
        console.print("nothing would change")

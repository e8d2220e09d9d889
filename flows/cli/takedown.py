"""`headwater takedown`: what must leave the corpus and stay out, and what that touches.

`add` writes a tombstone into a list that git versions, `plan` says what it touches and costs, `apply` stores
fingerprints of what it covers and marks releases, and the next `headwater run` leaves it out.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.output import console
from tasks.contracts.errors import InputError, UsageError, did_you_mean
from tasks.contracts.redaction import without_userinfo
from tasks.contracts.release import RELEASE_FOLDER
from tasks.contracts.urls import canonical_host, page_key
from tasks.rights.takedowns import (
    LIST,
    Row,
    add_fingerprints,
    append_row,
    read_rows,
    read_takedowns,
    text_sha256,
    tombstone_id,
)

app = typer.Typer(help="Take pages out of the corpus, and keep them out.", no_args_is_help=True)
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
EXAMPLES = 10


@app.command()
def add(
    what: Annotated[
        str | None, typer.Argument(metavar="URL|HOST", help='"*.example.org": a domain, all of it.')
    ] = None,
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    file: Annotated[Path | None, typer.Option(metavar="F", help="A text (UTF-8) to take down wherever it is.")] = None,
    asked_by: Annotated[str | None, typer.Option(help="Who asked.")] = None,
    day: Annotated[str | None, typer.Option("--date", metavar="YYYY-MM-DD", help="Today when left out.")] = None,
    withdraw: Annotated[str | None, typer.Option(metavar="ID", help="Withdraw a tombstone instead.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Add a tombstone to the list, or withdraw one. Nothing else changes until `apply` and the next run.

    Example: headwater takedown add https://example.org/page --reason "the author asked"
    """
    if sum(given is not None for given in (what, file, withdraw)) != 1:
        raise UsageError("one of URL or HOST, --file and --withdraw is needed", found="none or several of them")
    if not reason.strip():
        raise UsageError("a reason is needed", expected='--reason "…"', found="none")
    row = _row(what, file, withdraw, reason, _day(day), asked_by)
    known = {one.id for one in read_takedowns().tombstones}
    new = (row.id in known) if withdraw else (row.id not in known)
    if withdraw and not new:
        hint = did_you_mean(withdraw, known)
        listed = ", ".join(sorted(known)[:5]) or "none"
        raise UsageError("there is no such tombstone", expected=listed, found=withdraw, fix=hint)
    if new:
        append_row(row)
        if file is not None:
            from flows.proof.affected import fingerprint

            add_fingerprints([fingerprint(row.id, _text(file))])
    if as_json:
        console.json({"id": row.id, "new": new, **row.model_dump(mode="json")})
        return
    if not new:
        console.print(f"{row.id}  stands in {LIST} already", soft_wrap=True)
        return
    console.print(f"{row.id}  {row.kind} {row.value}\n`headwater takedown plan` says what it touches.")


def _day(day: str | None) -> str:
    if day is None:
        return datetime.now(UTC).date().isoformat()
    try:
        return date.fromisoformat(day).isoformat()
    except ValueError as error:
        raise UsageError("this is no date", expected="YYYY-MM-DD", found=day) from error


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("the text cannot be read", where=str(file), expected="UTF-8", found=str(error)) from error


def _row(what: str | None, file: Path | None, withdraw: str | None, reason: str, day: str, asked_by: str | None) -> Row:
    facts: dict[str, Any] = {"reason": reason, "date": day, "asked_by": asked_by}
    if withdraw is not None:
        if not any(row.id == withdraw for row in read_rows()):
            hint = did_you_mean(withdraw, [row.id for row in read_rows()])
            raise UsageError("there is no such tombstone", where=str(LIST), found=withdraw, fix=hint)
        return Row(id=withdraw, kind="withdrawal", **facts)
    if file is not None:
        digest = text_sha256(_text(file))
        if digest is None:
            raise InputError("the text to take down is empty", where=str(file))
        return Row(id=_new_id("document", digest, day), kind="document", value=digest, **facts)
    assert what is not None, "checked by the caller"
    what = without_userinfo(what.strip())
    if "://" in what:
        if "/" not in page_key(what) or page_key(what) == what.strip():
            raise UsageError("this is not an address of the web", expected="https://host/path", found=what)
        return Row(id=_new_id("url", page_key(what), day), kind="url", value=what.strip(), **facts)
    below = what.startswith("*.")
    name = canonical_host(what.removeprefix("*."))
    if name is None or ":" in name:
        raise UsageError("this is neither a URL nor a host", expected="https://host/path, host or *.domain", found=what)
    host = f"*.{name}" if below else name
    return Row(id=_new_id("host", host, day), kind="host", value=host, **facts)


def _new_id(kind: str, value: str, day: str) -> str:
    """Return the id of a tombstone; one that stands already keeps its own, whatever the day."""
    for row in read_takedowns().tombstones:
        if row.kind == kind and (page_key(row.value) if kind == "url" else row.value) == value:
            return row.id
    found, rows = tombstone_id(kind, value, day), {row.id for row in read_rows()}
    while found in rows:  # withdrawn before, on the same day
        found = tombstone_id(kind, found, day)
    return found


@app.command("list")
def list_rows(as_json: JsonOption = False) -> None:
    """Show the list: every tombstone, whether it was withdrawn, and how many fingerprints it has.

    Example: headwater takedown list
    """
    takedowns = read_takedowns()
    alive = {row.id for row in takedowns.tombstones}
    prints = Counter(one.tombstone for one in takedowns.fingerprints)
    rows = [
        {**row.model_dump(mode="json"), "in_force": row.id in alive, "fingerprints": prints[row.id]}
        for row in read_rows()
        if row.kind != "withdrawal"
    ]
    if as_json:
        console.json(rows)
        return
    for row in rows:
        state = f"{row['fingerprints']} fingerprints" if row["in_force"] else "withdrawn"
        console.print(
            f"{row['id']}  {row['date']}  {row['kind']} {row['value']}  ({state}): {row['reason']}",
            soft_wrap=True,
        )
    if not rows:
        console.print("nothing is taken down")


@app.command()
def plan(as_json: JsonOption = False) -> None:
    """Say what the tombstones touch now, and what a rebuild costs; changes nothing.

    It looks in data/, in every release that is known here, and for their data in the shard cache and the DVC cache.
    Exit code 0: nothing is covered. 1: something is, or not everything could be looked at, which an error names then.

    Example: headwater takedown plan
    """
    from flows.proof.affected import estimate, find_affected

    takedowns = read_takedowns()
    found = find_affected(takedowns)
    answer = _answer(found) | {"rebuild_estimate": estimate(found) if found.covered else []}
    if as_json:
        console.json(answer)
    else:
        _print(answer, len(takedowns.tombstones))
    _refuse_if_incomplete(found)
    if found.covered or found.releases:
        sys.exit(1)


@app.command()
def apply(as_json: JsonOption = False) -> None:
    """Store the fingerprints of what the tombstones cover, and mark the releases that hold it.

    May be called again at any time: it adds what is new. The next `headwater run` then leaves everything covered out.
    Exit code 1: not everything could be looked at; what was found is applied, and an error names the rest.

    Example: headwater takedown apply
    """
    from flows.history.marks import is_release, mark_release
    from flows.mlflow.takedown_tags import mark_in_mlflow
    from flows.proof.affected import find_affected
    from flows.workspace.locks import workspace_lock

    with workspace_lock("run"):
        takedowns = read_takedowns()
        found = find_affected(takedowns)
        stored = add_fingerprints(found.fingerprints)
        rows = {row.id: row for row in takedowns.tombstones}
        changed = 0
        for manifest, (release, documents) in found.releases.items():
            counted = Counter(found.tombstone_of[doc_id] for doc_id in documents)
            held_out = Counter(found.tombstone_of[doc_id] for doc_id in found.held_out[manifest])
            tombstones: dict[str, dict[str, Any]] = {
                name: {
                    "kind": rows[name].kind,
                    "date": rows[name].date,
                    "documents": number,
                    "held_out": held_out[name],
                }
                for name, number in sorted(counted.items())
            }
            folders = [release.folder, *([Path(RELEASE_FOLDER)] if is_release(Path(RELEASE_FOLDER), manifest) else [])]
            for folder in dict.fromkeys(folders):
                if is_release(folder, manifest):
                    changed += mark_release(folder, manifest, tombstones)
            if not is_release(release.folder, manifest):
                found.unreachable.append(
                    f"the release {release.name} {manifest[:12]} holds what was taken down and cannot be marked: its "
                    f"kept copy {release.folder} is gone"
                )
        told = mark_in_mlflow(found.releases)
    answer = _answer(found) | {"fingerprints_stored": stored, "folders_marked": changed, "mlflow_marked": told}
    answer["next"] = "headwater run"
    if as_json:
        console.json(answer)
        _refuse_if_incomplete(found)
        return
    console.print(
        f"{stored} new fingerprints in infra/takedowns.fingerprints.jsonl (hashes only); commit it with the list\n"
        f"{len(found.releases)} releases hold what was taken down, {changed} folders marked now"
        f"{', MLflow too' if told else ''}\nnext: `headwater run`",
        soft_wrap=True,
    )
    _refuse_if_incomplete(found)


def _refuse_if_incomplete(found: Any) -> None:
    """Let no script take "not found" for "not there".

    Raises:
        InputError: something that may hold what was taken down could not be looked at.
    """
    if found.unreachable:
        raise InputError(
            "the answer is incomplete: not all that may hold what was taken down can be read here",
            found="\n         ".join(found.unreachable),
            fix="bring it back (`dvc checkout` or `dvc pull`, with the dvc.lock of its commit for an earlier run; or "
            "`headwater run`), then ask again",
        )


def _answer(found: Any) -> dict[str, Any]:
    return {
        "complete": not found.unreachable,
        "unreachable": found.unreachable,
        "read_elsewhere": found.elsewhere,
        "documents": [asdict(one) for one in found.covered],
        "duplicates": found.duplicates,
        "shards": {stage: {"affected": names, "of": found.of[stage]} for stage, names in found.shards.items()},
        "token_shards": {"affected": found.token_shards, "of": found.of.get("tokenize", 0)},
        "checkpoint": found.checkpoint,
        "perplexity_reference": found.reference,
        "retrain": found.checkpoint or bool(found.shards.get("mix")),
        "releases": [
            {
                "name": one.name,
                "manifest_sha256": name,
                "documents": len(documents),
                "held_out": len(found.held_out[name]),
                "marked": one.takedown is not None,
            }
            for name, (one, documents) in found.releases.items()
        ],
    }


def _print(answer: dict[str, Any], tombstones: int) -> None:
    documents = answer["documents"]
    if not tombstones:
        console.print("nothing is taken down")
        return
    by = Counter(one["by"] for one in documents)
    console.print(f"{tombstones} tombstones cover {len(documents)} documents" + (f" ({_counted(by)})" if by else ""))
    for one in documents[:EXAMPLES]:
        score = "" if one["score"] is None else f" {one['score']:.2f}"
        console.print(f"  {one['tombstone']}  {one['by']}{score}  {one['url']}", soft_wrap=True)
    if len(documents) > EXAMPLES:
        console.print(f"  {len(documents) - EXAMPLES} more; --json names them all")
    console.print(f"{len(answer['duplicates'])} ledger rows of dedup tie them to duplicates")
    for stage, shards in answer["shards"].items():
        console.print(f"  {stage:<14} {len(shards['affected'])} of {shards['of']} shards")
    tokens = answer["token_shards"]
    console.print(f"  {'tokenize':<14} {len(tokens['affected'])} of {tokens['of']} token shards")
    if answer["retrain"]:
        console.print("Training text and the tokenizer's sample hold it: tokenizer and model are made again from zero.")
    if answer["perplexity_reference"]:
        console.print("The perplexity model's reference may hold it: that model is trained again too.")
    for one in answer["releases"]:
        mark = "marked" if one["marked"] else "not marked yet"
        only = f", {one['held_out']} of them held out of training, in its tasks/" if one["held_out"] else ""
        console.print(
            f"release {one['name']} {one['manifest_sha256'][:12]}: {one['documents']} documents{only} ({mark})",
            soft_wrap=True,
        )
    if answer["read_elsewhere"]:
        console.print(f"not (or no longer) in data/, and read from the caches: {', '.join(answer['read_elsewhere'])}")
    if not answer["complete"]:
        console.print("INCOMPLETE: not everything could be looked at")
    rows = [row for row in answer["rebuild_estimate"] if row["runs"]]
    if rows:
        known = [row["estimated_seconds"] for row in rows if row["estimated_seconds"] is not None]
        console.print(
            f"rebuild: {len(rows)} stages, about {sum(known):,.0f} s (an estimate, from the last run records)"
        )


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{number} by {name}" for name, number in counter.most_common())

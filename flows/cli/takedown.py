"""`headwater takedown`: what must leave the corpus and stay out, and what that touches.

`add` writes a tombstone into a list that git versions, `plan` says what it touches and costs, `apply` stores
fingerprints of what it covers and marks releases, and the next `headwater run` leaves it out.
"""

from __future__ import annotations

import sys
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.output import JsonOption, console
from flows.proof.takedown_text import as_values, print_answer
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
    answer = as_values(found) | {"rebuild_estimate": estimate(found) if found.covered else []}
    if as_json:
        console.json(answer)
    else:
        print_answer(answer, len(takedowns.tombstones))
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
    from flows.history.output_filter import make_filter
    from flows.mlflow.takedown_tags import mark_in_mlflow
    from flows.proof.affected import find_affected
    from flows.workspace.locks import workspace_lock

    with workspace_lock("run"):
        takedowns = read_takedowns()
        found = find_affected(takedowns)
        stored = add_fingerprints(found.fingerprints)
        rows = {row.id: row for row in takedowns.tombstones}
        fingerprints = read_takedowns().fingerprints
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
            filter_ = make_filter(fingerprints, tombstones, found.common)
            folders = [release.folder, *([Path(RELEASE_FOLDER)] if is_release(Path(RELEASE_FOLDER), manifest) else [])]
            for folder in dict.fromkeys(folders):
                if is_release(folder, manifest):
                    changed += mark_release(folder, manifest, tombstones, filter_)
            if not is_release(release.folder, manifest):
                found.unreachable.append(
                    f"the release {release.name} {manifest[:12]} holds what was taken down and cannot be marked: its "
                    f"kept copy {release.folder} is gone"
                )
        told = mark_in_mlflow(found.releases)
    answer = as_values(found) | {"fingerprints_stored": stored, "folders_marked": changed, "mlflow_marked": told}
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

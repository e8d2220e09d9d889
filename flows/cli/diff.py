"""`headwater diff`: what changed between two releases, the cause and the scores first."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.output import console
from tasks.contracts.errors import HeadwaterError, UsageError, did_you_mean

if TYPE_CHECKING:
    from flows.proof.difference import Difference


def diff(
    a: Annotated[str, typer.Argument(metavar="RELEASE_A", help="A release: folder, name, or its manifest's SHA-256.")],
    b: Annotated[str, typer.Argument(metavar="RELEASE_B", help="The one to compare it with.")],
    everything: Annotated[bool, typer.Option("--all", help="Show what is the same in both too, and all rows.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many rows of a table.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts; all rows that differ.")] = False,
) -> None:
    """Say what changed from one release to another: scores, settings, rules, sources, counts, data and code.

    Folders may be of any machine. Of releases made in this workspace the documents are compared one by one, and the
    code that ran. A hash may be cut to its first 8 digits or more. Exit code 0 when nothing differs, 1 when something
    does, 2 when they cannot be compared.

    Example: headwater diff 3dfe374a data/release
    """
    from flows.proof.difference import compare
    from flows.proof.difference_workspace import overlap, runs
    from flows.proof.release_files import open_release

    try:
        first, second = (open_release(locate(asked)) for asked in (a, b))
        found = compare(
            first,
            second,
            everything=everything,
            runs=(runs(first), runs(second)),
            documents=overlap(first, second),
        )
    except HeadwaterError as error:
        error.exit_code = 2  # 1 would say that they differ
        raise
    if as_json:
        console.json(_value(found))
    else:
        from flows.proof.difference_text import lines

        for line in lines(found, limit=None if everything else limit):
            console.print(line)
    if not found.same:
        raise typer.Exit(1)


def locate(asked: str) -> Path:
    """Return the folder of a release by its folder, its name, or the beginning of its manifest's SHA-256.

    Raises:
        UsageError: there is none, or there are several.
    """
    from flows.history.releases import known_releases
    from flows.proof.trace_release import SHORTEST_HASH
    from tasks.contracts.manifest import MANIFEST_NAME

    folder = Path(asked)
    if (folder / MANIFEST_NAME).is_file():
        return folder
    known = known_releases()
    found = [release for release in known if release.name == asked]
    if not found and len(asked) >= SHORTEST_HASH:
        found = [release for release in known if release.manifest_sha256.startswith(asked.lower())]
    if len(found) == 1:
        return found[0].folder
    if not found and folder.is_dir():
        return folder  # what it lacks to be a release is said when it is opened
    listed = ", ".join(f"{release.name} ({release.manifest_sha256[:12]})" for release in found or known)
    if found:
        raise UsageError(
            f"{len(found)} releases are called so",
            expected=f"one of {listed}",
            found=asked,
            fix=f"name it by its hash, such as {found[-1].manifest_sha256[:12]}, or by its folder",
        )
    raise UsageError(
        "there is no such release",
        expected=f"a release's folder, or one of {listed}" if listed else "a release's folder; none was made here yet",
        found=asked,
        fix=did_you_mean(asked, [name for release in known for name in (release.name, release.manifest_sha256[:12])]),
    )


def _value(found: Difference) -> dict[str, Any]:
    value = {"same": found.same, **asdict(found)}
    for row, score in zip(value["scores"], found.scores, strict=True):
        row["difference"] = score.difference
    return value

"""`headwater verify`: a release against its own claims, then the workspace that made it, back to the raw records.

The first part is `training.release.verify`, the program that stands in each release. The second asks the same of the
stages' folders, the run records and the settings (`verify_files`). `--deep` follows every document
(`verify_documents`) and makes things again (`verify_again`). Nothing has to run for it, and nothing is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.output import JsonOption, console
from flows.proof import verify_files
from flows.proof.verify import check_all
from flows.workspace.adaptation import FOLDER, stages_behind
from tasks.contracts.errors import UsageError
from tasks.contracts.release import RELEASE_FOLDER
from training.release.signing import PUBLIC_KEY_VARIABLE, check_public_key
from training.release.verify import as_text, report

SIGNED = (
    "Who can change every file of data/, .headwater/ and the release can forge all of it at once, and this program "
    "finds nothing: other pages than were crawled, weights that were trained on something else, losses, scores of "
    "items, the reasons in a ledger, what sources.json says of the crawl and model.json of the perplexity models. A "
    "title, a language or a reservation is made again in a sample. Against that helps only what stands elsewhere: the "
    "manifest's hash (--expect) or a signature (--public-key)."
)


def verify(
    release: Annotated[Path, typer.Argument(metavar="[RELEASE_DIR]", help="The release.")] = Path(RELEASE_FOLDER),
    deep: Annotated[bool, typer.Option("--deep", help="Make digests, texts, tokens and batches again.")] = False,
    sample: Annotated[int, typer.Option(min=1, help="Documents and steps that --deep makes again.")] = 100,
    expect: Annotated[
        str | None, typer.Option(metavar="SHA256", help="The manifest's SHA-256 as it was published.")
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar=PUBLIC_KEY_VARIABLE, help="Who made it must have signed it with this key."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a release and the workspace that made it, offline; exit code 1 names the first broken link.

    Example: headwater verify --deep --sample 20
    """
    if not release.is_dir():
        raise UsageError("there is no such release", where=str(release), fix="name a release's folder, or run first")
    if public_key is not None:
        check_public_key(public_key)
    data = stages_behind(release)
    if deep and data == FOLDER:
        raise UsageError(
            "--deep makes again what dvc.yaml's stages made, which is behind an adaptation's base",
            where=str(release),
            expected="the base",
            fix="without --deep all of an adapted release is checked; `headwater verify --deep` checks the base",
        )
    results = check_all(release, data, sample=sample if deep else None, expect=expect, public_key=public_key)
    told = report(release, results)
    notes = [verify_files.other_code(data)] if deep and told["verdict"] == "fail" else []
    limits = " ".join(filter(None, [*notes, "" if expect or public_key else SIGNED]))
    if as_json:
        console.json({**told, "limits": limits})
    else:
        console.lines(as_text(told).rstrip("\n") + (f"\n\n{limits}" if limits else ""))
    if told["verdict"] == "fail":
        raise typer.Exit(1)

"""`headwater sign`: sign a release that is made already, as a run does it where a key is configured.

The signature goes into the copy of the release that the workspace keeps, never into data/release, which every rebuild
must give with the same bytes. Any other folder that is named, such as a published copy, gets it itself.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer

from flows.output import JsonOption, console
from flows.pipeline.signature import show_in_mlflow
from tasks.contracts.errors import UsageError
from tasks.contracts.manifest import MANIFEST_NAME, manifest_hash
from tasks.contracts.release import RELEASE_FOLDER, SIGNATURE_NAME
from training.champions import kept_copy
from training.release.signing import KEY_VARIABLE, open_key, sign_release


def sign(
    release: Annotated[
        str | None,
        typer.Argument(help="Its name, the beginning of its manifest's SHA-256, or its folder; data/release if none."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The private key; else HEADWATER_SIGNING_KEY or release.signing_key."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a release with your private key, so that others can check who made it; one signed already stays as it is.

    Example: headwater sign headwater-sample --key ~/keys/release.pem
    """
    from flows.workspace.params import read_params, signing_key

    opened = open_key(key, "--key") if key else signing_key(read_params())
    if opened is None:
        raise UsageError(
            "there is no key to sign with",
            expected=f"--key, {KEY_VARIABLE}, or release.signing_key in params.yaml",
            fix="docs/provenance.md, Sign, shows how to make one",
        )
    folder = _folder(release)
    own = manifest_hash(folder)
    made = sign_release(folder, opened)
    fingerprint = sha256(opened.public_pem).hexdigest()
    shown = show_in_mlflow(own) if made else False
    if as_json:
        told = {
            "release": own,
            "signature": str(folder / SIGNATURE_NAME),
            "key": fingerprint,
            "made": made,
            "mlflow": shown,
        }
        console.json(told)
        return
    said = "signed" if made else "it was signed with this key already"
    console.lines(f"{said}: {folder / SIGNATURE_NAME}\n  release: {own}\n  key: {fingerprint}")


def _folder(release: str | None) -> Path:
    """Return the folder that gets the signature."""
    from flows.proof.trace_release import find_release

    if release is not None and not (Path(release) / MANIFEST_NAME).is_file():
        return find_release(release, Path("data")).folder
    folder = Path(release or RELEASE_FOLDER)
    if not (folder / MANIFEST_NAME).is_file():
        raise UsageError("there is no release yet", where=str(folder), fix="`headwater run` makes one")
    if folder.resolve() != Path(RELEASE_FOLDER).resolve():
        return folder
    kept = kept_copy(manifest_hash(folder))
    if kept is None:
        raise UsageError(
            "no copy of this release is kept here, and data/release itself is not signed: it would differ from what "
            "DVC knows",
            where=str(folder),
            fix="copy it to another folder and sign that, or make it again: `headwater run --force release`",
        )
    return kept

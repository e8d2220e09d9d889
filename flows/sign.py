"""`headwater sign`: sign a release that is made already, as a run does it where a key is configured.

The signature goes into the copy of the release that the workspace keeps, never into data/release, which every rebuild
must give with the same bytes. Any other folder that is named, such as a published copy, gets it itself.
"""

from __future__ import annotations

import logging
import os
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer

from flows.terminal import console
from tasks.contracts.errors import UsageError
from tasks.contracts.manifest import MANIFEST_NAME, manifest_hash
from tasks.contracts.workspace import state_folder
from training.champion import kept_copy
from training.signing import KEY_VARIABLE, SigningKey, open_key, sign_release, signer_of
from training.verify import SIGNATURE

logger = logging.getLogger(__name__)


def sign(
    release: Annotated[
        str | None,
        typer.Argument(help="Its name, the beginning of its manifest's SHA-256, or its folder; data/release if none."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The private key; else HEADWATER_SIGNING_KEY or release.signing_key."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Sign a release with your private key, so that others can check who made it; one signed already stays as it is.

    Example: headwater sign headwater-sample --key ~/keys/release.pem
    """
    from flows.params import read_params, signing_key

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
    shown = _show_in_mlflow(own) if made else False
    if as_json:
        told = {"release": own, "signature": str(folder / SIGNATURE), "key": fingerprint, "made": made, "mlflow": shown}
        console.json(told)
        return
    said = "signed" if made else "it was signed with this key already"
    console.lines(f"{said}: {folder / SIGNATURE}\n  release: {own}\n  key: {fingerprint}")


def sign_if_not(release: Path, key: SigningKey) -> bool:
    """Sign the kept copy of a release that no stage made just now, since it was up to date or came from DVC's cache.

    No file is hashed where a signature names this key: it was checked when it was made.

    Returns:
        Whether a signature was made.
    """
    own = manifest_hash(release)
    kept = kept_copy(own)
    if kept is None or signer_of(kept / SIGNATURE) == sha256(key.public_pem).hexdigest():
        return False
    made = sign_release(kept, key)
    if made:
        _show_in_mlflow(own)
    return made


def _folder(release: str | None) -> Path:
    """Return the folder that gets the signature."""
    from flows.lineage.trace_release import find_release

    if release is not None and not (Path(release) / MANIFEST_NAME).is_file():
        return find_release(release, Path("data")).folder
    folder = Path(release or "data/release")
    if not (folder / MANIFEST_NAME).is_file():
        raise UsageError("there is no release yet", where=str(folder), fix="`headwater run` makes one")
    if folder.resolve() != Path("data/release").resolve():
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


def _show_in_mlflow(release: str) -> bool:
    """Add the signature to the release's version in MLflow, where there is one; a failure is a warning."""
    from flows.lineage.tracking import QUIET

    if not ((state_folder() / "mlflow.db").is_file() or os.environ.get("MLFLOW_TRACKING_URI")):
        return False
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    from mlflow.exceptions import MlflowException

    from flows.lineage.mlflow_runs import open_client
    from flows.lineage.registry import publish_signature

    try:
        return publish_signature(open_client(), release)
    except (MlflowException, OSError) as error:
        logger.warning("MLflow does not show the signature: %s", error)
        return False

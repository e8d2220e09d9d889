"""The signature of a release that no stage made just now: put beside the kept copy, and shown in MLflow."""

from __future__ import annotations

import logging
from hashlib import sha256
from pathlib import Path

from tasks.contracts.errors import LockedError
from tasks.contracts.manifest import manifest_hash
from tasks.contracts.release import SIGNATURE_NAME
from training.champions import kept_copy
from training.release.signing import SigningKey, sign_release, signer_of

logger = logging.getLogger(__name__)


def sign_if_not(release: Path, key: SigningKey) -> bool:
    """Sign the kept copy of a release that no stage made just now, since it was up to date or came from DVC's cache.

    No file is hashed where a signature names this key: it was checked when it was made.

    Returns:
        Whether a signature was made.
    """
    own = manifest_hash(release)
    kept = kept_copy(own)
    if kept is None or signer_of(kept / SIGNATURE_NAME) == sha256(key.public_pem).hexdigest():
        return False
    made = sign_release(kept, key)
    if made:
        show_in_mlflow(own)
    return made


def show_in_mlflow(release: str) -> bool:
    """Add the signature to the release's version in MLflow, where there is one; a failure is a warning."""
    from flows.services.tracking import be_quiet, is_in_use

    if not is_in_use():
        return False
    be_quiet()
    from mlflow.exceptions import MlflowException

    from flows.mlflow.registry import publish_signature
    from flows.mlflow.stage_runs import open_client

    try:
        return publish_signature(open_client(), release)
    except (MlflowException, OSError, LockedError) as error:
        logger.warning("MLflow does not show the signature: %s", error)
        return False

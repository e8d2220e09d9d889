"""Signs a release folder and checks its signature, by OpenSSF model-signing and a key of the publisher's own.

The signature, `model.sig`, is a Sigstore bundle over the SHA-256 of every file of the folder. So whoever has the
publisher's public key needs nothing of ours: `model_signing verify key FOLDER --signature model.sig --public_key FILE`.
It leaves out itself and the takedown mark, which may be added later. ECDSA takes a random number each time, so a
signature never stands in a stage's output, which every rebuild must give with the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.contracts.durable_files import atomic_path, sha256_file
from tasks.contracts.errors import HeadwaterError, InputError, ParamsError, UsageError
from tasks.contracts.manifest import MANIFEST_NAME, manifest_hash, read_manifest
from tasks.contracts.release import SIGNATURE_NAME
from training.champions import kept_copy
from training.release.verify import BESIDE, MOST_JSON_BYTES, Break
from training.release.verify import sha256_file as sha256_at_most

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from model_signing.hashing import Config

SETTING = "release.signing_key in params.yaml"
KEY_VARIABLE = "HEADWATER_SIGNING_KEY"
PASSWORD_VARIABLE = "HEADWATER_SIGNING_KEY_PASSWORD"
PUBLIC_KEY_VARIABLE = "HEADWATER_PUBLIC_KEY"
NOT_SIGNED = (SIGNATURE_NAME, *BESIDE)
CURVES = ("secp256r1", "secp384r1", "secp521r1")
"""The curves that model-signing takes, by OpenSSL's names; the first is also called prime256v1 and P-256."""
KEY_KIND = "a PEM file with an elliptic curve key on " + ", ".join(CURVES)


@dataclass(frozen=True, kw_only=True)
class SigningKey:
    """A private key that was opened once and can be used; it stays in its file.

    Attributes:
        public_pem: its public half.
    """

    path: Path
    public_pem: bytes
    password: bytes | None = field(default=None, repr=False)


def configured_key(setting: object) -> SigningKey | None:
    """Return the key that releases are signed with; None where none is configured.

    Args:
        setting: `release.signing_key`; the environment variable HEADWATER_SIGNING_KEY wins over it.

    Raises:
        ParamsError: the key cannot be used.
    """
    if from_environment := os.environ.get(KEY_VARIABLE):
        return open_key(from_environment, KEY_VARIABLE)
    return open_key(setting, SETTING) if isinstance(setting, str) and setting else None


def open_key(given: str, named_by: str) -> SigningKey:
    """Open a private key, to find out now whether it can be used.

    Args:
        given: path of a PEM file; the password of an encrypted one is in HEADWATER_SIGNING_KEY_PASSWORD.
        named_by: the setting, variable or option that names it, for the error.

    Raises:
        ParamsError: it is missing or unreadable, no such key, or its password is wrong. No error quotes a file's bytes.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if "-----BEGIN" in given or "\n" in given:
        raise ParamsError(
            f"{named_by} holds a key itself",
            expected="the path of a PEM file",
            fix="store the key in a file that only you can read, and give its path",
        )
    path = Path(given).expanduser()
    where = f"{path}, named by {named_by}"
    pem = _read_key(path, where, ParamsError)
    if b"ENCRYPTED" not in pem:
        password = None
    elif not (text := os.environ.get(PASSWORD_VARIABLE, "")):
        raise ParamsError(
            "the signing key is encrypted and no password is given", where=where, fix=f"set {PASSWORD_VARIABLE}"
        )
    else:
        password = text.encode()
    try:
        key = serialization.load_pem_private_key(pem, password)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if password:
            found, fix = "it does not open with the password given", f"set {PASSWORD_VARIABLE} to its password"
        else:
            found, fix = _kind(pem), "docs/provenance.md, Sign, shows how to make one"
        raise ParamsError(
            "the signing key cannot be opened", where=where, expected=KEY_KIND, found=found, fix=fix
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        raise ParamsError(
            "the signing key is of a kind that model-signing does not take",
            where=where,
            expected=KEY_KIND,
            found=key.curve.name if isinstance(key, ec.EllipticCurvePrivateKey) else type(key).__name__,
            fix="docs/provenance.md, Sign, shows how to make one",
        )
    return SigningKey(path=path, public_pem=_public_pem(key.public_key()), password=password)


def check_public_key(path: Path) -> None:
    """Make sure that a file holds a public key which a signature can be checked with.

    Raises:
        UsageError: it does not.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    pem = _read_key(path, str(path), UsageError)
    try:
        key: Any = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise UsageError(
            "there is no public key in the file that was given to check the signature with",
            where=str(path),
            expected=KEY_KIND,
            found=_kind(pem) if key is None else f"a key of another kind, {type(key).__name__}",
            fix="give the public key of who made the release",
        )


def sign_release(folder: Path, key: SigningKey) -> bool:
    """Sign a release folder into its `model.sig`; one that is there and right is left as it is.

    Returns:
        Whether a signature was made.

    Raises:
        InputError: the folder's files are not those of its manifest, so that it is not signed.
    """
    from model_signing import signing

    with tempfile.NamedTemporaryFile(suffix=".pem") as public:
        public.write(key.public_pem)
        public.flush()
        if (folder / SIGNATURE_NAME).is_file() and not list(
            differences(folder, folder / SIGNATURE_NAME, Path(public.name))
        ):
            return False
    # The library says str, and hands it to a function that takes bytes only.
    password: Any = key.password
    config = signing.Config()
    try:
        config.use_elliptic_key_signer(private_key=key.path, password=password).set_hashing_config(_hashing())
    except (OSError, ValueError, TypeError):
        raise ParamsError(
            "the signing key is not what it was when it was first opened",
            where=str(key.path),
            fix="put it back, then `headwater sign`: the release itself is complete",
        ) from None
    with atomic_path(folder / SIGNATURE_NAME) as temporary:
        try:
            config.sign(folder, temporary)
        except ValueError as error:
            raise _not_signed(folder, str(error)) from None
        # What was signed is what was hashed; so one reading of the weights answers both questions.
        listed = {shard.name: shard.sha256 for shard in read_manifest(folder).shards}
        listed[MANIFEST_NAME] = manifest_hash(folder)
        for broken in _compare(listed, signed_files(temporary)):
            raise _not_signed(folder, f"{broken.where}: {broken.found}")
    return True


def _not_signed(folder: Path, found: str) -> HeadwaterError:
    return InputError(
        "the release is not signed: it is not what its manifest says",
        where=str(folder),
        expected=f"the files that {MANIFEST_NAME} lists, and no others",
        found=found,
        fix="`headwater verify` with this folder says more; put a whole copy of the release in its place",
    )


def find_signature(folder: Path) -> Path | None:
    """Return the signature of a release: in the folder itself, else in the copy of it that this workspace keeps."""
    kept = kept_copy(sha256_at_most(folder / MANIFEST_NAME, MOST_JSON_BYTES))
    for place in (folder, kept):
        if place is not None and (place / SIGNATURE_NAME).is_file():
            return place / SIGNATURE_NAME
    return None


def signer_of(signature: Path) -> str | None:
    """Return which key a signature names: the SHA-256 of its public half in PEM; None where it names none."""
    try:
        named = json.loads(signature.read_bytes())["verificationMaterial"]["publicKey"]["hint"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return named if isinstance(named, str) else None


def differences(folder: Path, signature: Path, public_key: Path) -> Iterator[Break]:
    """Check that a key signed a folder as it is; yield what is not so.

    Args:
        public_key: a PEM file that `check_public_key` takes.
    """
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying

    # Named beforehand, for an answer that says which key it was; the library compares the two as well.
    named, given = signer_of(signature), _fingerprint(public_key)
    if named is not None and named != given:
        yield Break(f"{signature}, key", f"made with the key {given}", f"made with the key {named}")
        return
    config = verifying.Config()
    config.use_elliptic_key_verifier(public_key=public_key).set_hashing_config(_hashing())
    try:
        with redirect_stdout(sys.stderr):  # the library prints a warning where a signature names no key
            config.verify(folder, signature)
    except InvalidSignature:
        yield Break(str(signature), "a signature by the key that was given", "one that this key did not make")
    except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
        try:
            breaks = list(_compare(signed_files(signature), _files(folder)))
        except (ValueError, LookupError, TypeError, AttributeError, OSError):
            breaks = []
        yield from breaks or [Break(str(signature), "a signature of this folder", f"{type(error).__name__}: {error}")]
    else:
        # A signature names what it leaves out. One that leaves out more than ours do says nothing of those files.
        for name in sorted(set(_names(folder)) - set(signed_files(signature))):
            yield Break(name, "a signed file", "one that the signature leaves out")


def signed_files(signature: Path) -> dict[str, str]:
    """Return the files that a signature is over: name → SHA-256. Says nothing of whether it is right."""
    statement = json.loads(base64.b64decode(json.loads(signature.read_bytes())["dsseEnvelope"]["payload"]))
    return {one["name"]: one["digest"] for one in statement["predicate"]["resources"]}


def _compare(expected: Mapping[str, str], found: Mapping[str, str]) -> Iterator[Break]:
    """Yield where two lists of files differ, the manifest first: it says whether this is another release."""
    for name in sorted({*expected, *found}, key=lambda name: (name != MANIFEST_NAME, name)):
        if name not in found:
            yield Break(name, "a file that was signed", "missing")
        elif name not in expected:
            yield Break(name, "no such file in what was signed", "added")
        elif expected[name] != found[name]:
            yield Break(f"{name}, SHA-256", expected[name], found[name])


def _files(folder: Path) -> dict[str, str]:
    return {name: sha256_file(folder / name) for name in _names(folder)}


def _names(folder: Path) -> list[str]:
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [name for name in names if name not in NOT_SIGNED]


def _hashing() -> Config:
    """Return which files are signed: all but three, files of git included (the library leaves those out)."""
    from model_signing import hashing

    config = hashing.Config()
    return config.set_ignored_paths(paths=NOT_SIGNED, ignore_git_paths=False)


def _read_key(path: Path, where: str, error_class: type[HeadwaterError]) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        found = error.strerror if isinstance(error, OSError) else "no path"
        raise error_class(
            "the key cannot be read", where=where, expected=KEY_KIND, found=found, fix="give the path of the key's file"
        ) from None


def _kind(pem: bytes) -> str:
    """Say what a file holds that is not the key wanted, without quoting it."""
    for mark, kind in (
        (b"PRIVATE KEY-----", "a private key, or something marked as one that cannot be read"),
        (b"BEGIN PUBLIC KEY-----", "a public key"),
        (b"BEGIN CERTIFICATE-----", "a certificate"),
    ):
        if mark in pem:
            return kind
    return "no PEM" if pem else "an empty file"


def _fingerprint(public_key: Path) -> str:
    """Return the SHA-256 by which model-signing names a key."""
    from cryptography.hazmat.primitives import serialization

    key: Any = serialization.load_pem_public_key(public_key.read_bytes())
    return hashlib.sha256(_public_pem(key)).hexdigest()


def _public_pem(key: EllipticCurvePublicKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

"""Digests as WARC files state them (ISO 28500:2017, labelled-digest): an algorithm, a colon, a value.

Which algorithms and which spelling of the value is left open there. Seen in archives: base 32 in capitals (most), in
small letters or without padding, and hexadecimal.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

_ALGORITHMS = {"sha1": "sha1", "sha256": "sha256", "sha512": "sha512", "md5": "md5"}


def sha1_digest(content: bytes) -> str:
    """Return a digest labelled as most archives do: "sha1:" and base 32.

    >>> sha1_digest(b"")
    'sha1:3I42H3S6NNFQ2MSVX7XZKYAYSCX5QBYJ'
    """
    return "sha1:" + base64.b32encode(hashlib.sha1(content, usedforsecurity=False).digest()).decode()


def other_digest(stated: str, content: bytes) -> str | None:
    """Return the digest of some bytes in the spelling of a stated one that is not theirs.

    None where it is theirs, and where it cannot be told: an algorithm or a spelling that is not known.

    >>> other_digest("sha1:3i42h3s6nnfq2msvx7xzkyayscx5qbyj", b"")
    >>> other_digest("md5:d41d8cd98f00b204e9800998ecf8427f", b"x")
    'md5:9dd4e461268c8034f5c8564e155c67a6'
    >>> other_digest("blake3:af1349b9", b"x")
    """
    label, colon, value = (part.strip() for part in stated.partition(":"))
    name = _ALGORITHMS.get(label.lower().replace("-", ""))
    if not colon or name is None:
        return None
    own = hashlib.new(name, content, usedforsecurity=False).digest()
    if re.fullmatch(f"[0-9A-Fa-f]{{{2 * len(own)}}}", value):
        return None if bytes.fromhex(value) == own else f"{label}:{own.hex()}"
    bare = value.rstrip("=").upper()
    try:
        known = base64.b32decode(bare + "=" * (-len(bare) % 8))
    except binascii.Error:
        return None
    if len(known) != len(own):
        return None
    return None if known == own else f"{label}:{base64.b32encode(own).decode().rstrip('=')}"

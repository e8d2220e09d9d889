"""Finds secrets in whatever a run leaves: in files of any format, compressed or encoded, and in what was printed."""

import base64
import bz2
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

GZIP = b"\x1f\x8b\x08"


def leaks(secrets: Mapping[str, str], root: Path, printed: Sequence[str] = (), *, ignore: bytes = b"") -> list[str]:
    """Return "name in place" for each secret found in a file's name or bytes below `root`, or in printed texts.

    Args:
        ignore: bytes that may stand there, such as a page's own body.
    """
    needles = {name: list(forms(secret)) for name, secret in secrets.items()}
    found = []
    for path in sorted(root.rglob("*")):
        place = path.relative_to(root).as_posix()
        contents = [place.encode(), *(unpacked(path.read_bytes()) if path.is_file() and not path.is_symlink() else [])]
        found += _search(needles, place, contents, ignore)
    for number, text in enumerate(printed):
        found += _search(needles, f"printed text {number}", [text.encode("utf-8", "surrogateescape")], b"")
    return sorted(set(found))


def _search(needles: Mapping[str, Sequence[bytes]], place: str, contents: Iterable[bytes], ignore: bytes) -> list[str]:
    found = []
    for content in contents:
        if ignore:
            content = content.replace(ignore, b"")
        found += [f"{name} in {place}" for name, listed in needles.items() if any(form in content for form in listed)]
    return found


def forms(secret: str) -> Iterator[bytes]:
    """Yield a secret as it may be written: plain, %-encoded or decoded, JSON-escaped, in base64 at each offset."""
    for form in {secret, quote(secret, safe=""), quote(secret), unquote(secret), secret.replace("/", "\\/")}:
        raw = form.encode()
        yield raw
        yield form.encode("utf-16-le")
        for offset in range(3):
            # What stands before shifts the letters: those that depend on a neighbour are left out.
            text = base64.b64encode(b"\0" * offset + raw).decode().rstrip("=")
            start, stop = (0, 2, 3)[offset], len(text) - (2 if (len(raw) + offset) % 3 else 0)
            if stop - start >= 6:
                yield text[start:stop].encode()
                yield text[start:stop].replace("+", "-").replace("/", "_").encode()


def unpacked(content: bytes, depth: int = 3) -> Iterator[bytes]:
    """Yield bytes, and what is in them: gzip members wherever they stand, zip, zstd, bz2, xz, Parquet, Arrow."""
    yield content
    if not depth:
        return
    at = content.find(GZIP)
    while at >= 0:
        try:
            inner = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(content[at:])
        except zlib.error:
            inner = b""
        if inner:
            yield from unpacked(inner, depth - 1)
        at = content.find(GZIP, at + 1)
    for inner in _whole(content):
        yield from unpacked(inner, depth - 1)


def _whole(content: bytes) -> Iterator[bytes]:
    if content[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    if content[:4] == b"\x28\xb5\x2f\xfd":
        yield zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content), read_across_frames=True).read()
    if content[:3] == b"BZh":
        yield bz2.decompress(content)
    if content[:6] == b"\xfd7zXZ\0":
        yield lzma.decompress(content)
    if content[:4] == b"PAR1":
        yield repr(pq.read_table(io.BytesIO(content)).to_pylist()).encode("utf-8", "surrogateescape")
    if content[:6] == b"ARROW1":
        yield repr(pa.ipc.open_file(content).read_all().to_pylist()).encode("utf-8", "surrogateescape")

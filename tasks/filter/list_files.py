"""Lists of words, domains and URLs in files that a person names: plain or gzip, one entry a line."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from tasks.contracts.errors import ParamsError

# The files of one category in the layout of the UT1 lists (University of Toulouse): domains and addresses.
UT1_FILES = ("domains", "urls", "domains.gz", "urls.gz")


def read_list(path: Path, expected: str) -> list[str]:
    """Return the entries of a file, without blank lines and lines that begin with #.

    Raises:
        ParamsError: the file cannot be read, or is no UTF-8 text.
    """
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise ParamsError(
            "a list that a filter names cannot be read",
            where=str(path),
            expected=f"a UTF-8 text file, {expected} (plain or gzip)",
            found=str(error),
            fix="correct the path in params.yaml, relative to the workspace",
        ) from error
    return [line for line in lines if line and not line.startswith("#")]


def url_lists(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield each file of a list of URLs with its category: a file, a category's folder, or a folder of categories.

    Raises:
        ParamsError: there is no such file, or the folder holds none of the files `domains` and `urls`.
    """
    if path.is_file():
        yield path.name.partition(".")[0], path
        return
    found = False
    folders = [path, *sorted(child for child in path.iterdir() if child.is_dir())] if path.is_dir() else []
    for folder in folders:
        for name in UT1_FILES:
            if (folder / name).is_file():
                found = True
                yield folder.name, folder / name
    if not found:
        raise ParamsError(
            "there is no list of URLs here",
            where=str(path),
            expected="a file, or a folder with `domains` and `urls` files, for each category or in all",
            found="nothing of that name" if not path.exists() else "none of these files",
            fix="correct the path in params.yaml, relative to the workspace",
        )

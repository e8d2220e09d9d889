"""What the installed packages say about themselves: docstrings, read from source files by `ast`, never imported."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import cast

from tasks.crawl.sample.docstrings import docstring_html, inline, markdown_html, words

# Packages whose docstrings are mostly prose, and how many kilobytes of docstrings to take from each: measured so
# that about 1,650 pages come out, 8 MB of prose, a third of them from the scientific packages. Absent ones are skipped.
PACKAGES = {
    "stdlib": 950, "scipy": 440, "numpy": 410, "sklearn": 440, "pandas": 320, "networkx": 380,
    "matplotlib": 320, "sympy": 280, "sqlalchemy": 440, "twisted": 440, "nltk": 190, "hypothesis": 160,
    "_pytest": 120, "pydantic": 160, "huggingface_hub": 120, "prefect": 160, "click": 80, "flask": 80,
    "werkzeug": 140, "asyncssh": 220, "dulwich": 100, "oauthlib": 120, "datasets": 120, "celery": 100,
    "PIL": 110, "rich": 60, "websockets": 110, "scrapy": 90, "fsspec": 80, "babel": 100, "pyparsing": 100,
    "docker": 100, "alembic": 100, "kombu": 60, "more_itertools": 80, "prompt_toolkit": 110, "peft": 100,
    "accelerate": 100, "pyarrow": 90, "jinja2": 60, "requests": 40, "urllib3": 80, "attr": 50, "anyio": 60,
    "graphql": 60,
}  # fmt: skip
DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "_pytest": "pytest",
    "PIL": "pillow",
    "attr": "attrs",
    "graphql": "graphql-core",
}
SKIPPED_FOLDERS = {
    "tests", "test", "testing", "site-packages", "_vendor", "vendored", "externals", "lib2to3", "idlelib",
    "turtledemo", "msilib", "pydoc_data", "_pyrepl", "ensurepip", "encodings", "__pycache__",
}  # fmt: skip
SKIPPED_FILE = re.compile(r"^(test_.*|.*_test|conftest|setup|_version)\.py$")
DOCSTRING = re.compile(r'"""(.*?)"""|\'\'\'(.*?)\'\'\'', re.S)
SHORTEST = 12  # words: shorter docstrings ("Return self.") only break up a page


@dataclass(frozen=True, slots=True)
class Entry:
    """One class or function: its heading and its HTML."""

    heading: str
    markup: str
    words: int


@dataclass(frozen=True, slots=True)
class Module:
    """One module's documentation: dotted name, one-line summary, entries in source order."""

    name: str
    summary: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Readme:
    """One distribution's description, as its metadata holds it."""

    name: str
    version: str
    summary: str
    licence: str | None
    markup: str
    words: int


def package_folder(package: str) -> Path | None:
    """Return where a package is installed, or None; "stdlib" is the standard library."""
    if package == "stdlib":
        return Path(sysconfig.get_path("stdlib"))
    folder = Path(sysconfig.get_path("purelib")) / package
    return folder if folder.is_dir() else None


def read_package(package: str, kilobytes: int) -> list[Module]:
    """Return the modules of a package that hold most documentation, sorted by name, up to a size of docstrings."""
    root = package_folder(package)
    if root is None:
        return []
    ranked: list[tuple[float, str, Path, int]] = []
    for path in _source_files(root):
        name = path.relative_to(root).as_posix()
        source = path.read_bytes().decode("utf-8", "replace")
        size = sum(len(match[0]) for match in DOCSTRING.finditer(source) if len(match[0]) > 160)
        if size > 800:
            ranked.append((-size * (size / len(source)) ** 0.5, name, path, size))
    chosen: list[tuple[str, Path]] = []
    total = 0
    for _, name, path, size in sorted(ranked, key=lambda row: row[:2]):
        if total > kilobytes * 1000:
            break
        chosen.append((name, path))
        total += size
    prefix = "" if package == "stdlib" else f"{package}."
    modules = (read_module(path, prefix + _dotted(name)) for name, path in sorted(chosen))
    return [module for module in modules if module is not None]


def _source_files(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS and not name.startswith(".")]
        yield from (Path(folder, name) for name in files if name.endswith(".py") and not SKIPPED_FILE.match(name))


def _dotted(name: str) -> str:
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def read_module(path: Path, name: str) -> Module | None:
    """Parse one source file and render its docstrings, or None where it has none or is not this Python's syntax."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return None
    docstring = ast.get_docstring(tree, clean=False) or ""
    entries = [Entry("", docstring_html(docstring, 2), 0)] if docstring else []
    entries.extend(_entries(tree, ""))
    summary = " ".join(docstring.strip().split("\n\n", 1)[0].split())[:160]
    measured = tuple(Entry(entry.heading, entry.markup, words(entry.markup)) for entry in entries)
    return Module(name, summary, measured) if measured else None


def _entries(tree: ast.AST, prefix: str) -> Iterator[Entry]:
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name.startswith("_") and node.name != "__init__":
            continue
        docstring = ast.get_docstring(node, clean=False) or ""
        if len(docstring.split()) >= SHORTEST:
            kind = "class " if isinstance(node, ast.ClassDef) else ""
            title = f"{kind}{prefix}{node.name}" if node.name != "__init__" else f"Making a {prefix.rstrip('.')}"
            yield Entry(title, docstring_html(docstring), 0)
        if isinstance(node, ast.ClassDef):
            yield from _entries(node, f"{node.name}.")


def read_readmes() -> list[Readme]:
    """Return the descriptions of the installed distributions that are long enough to be a page, sorted by name."""
    made: dict[str, Readme] = {}
    folder = Path(sysconfig.get_path("purelib"))
    for distribution in importlib.metadata.distributions(path=[str(folder)]):
        metadata = cast(Message, distribution.metadata)
        name = str(metadata["Name"] or "").lower().replace("_", "-")
        text = str(metadata.get_payload() or metadata.get("Description") or "")[:40_000]
        kind = str(metadata.get("Description-Content-Type") or "")
        if not name or len(text.split()) < 120:
            continue
        text = re.sub(r"<!--.*?-->|!\[[^\]]*\]\([^)]*\)", "", text, flags=re.S)
        rst = "rst" in kind or ("markdown" not in kind and "\n===" in text)
        markup = docstring_html(text, 2) if rst else markdown_html(re.sub(r"\[\s*\]\([^)]*\)", "", text))
        made[name] = Readme(
            name=name,
            version=str(metadata.get("Version") or ""),
            summary=inline(str(metadata.get("Summary") or "")),
            licence=licence_url(distribution),
            markup=markup,
            words=words(markup),
        )
    return [made[name] for name in sorted(made) if made[name].words >= 80]


LICENCES = {
    "apache": "https://www.apache.org/licenses/LICENSE-2.0",
    "mit": "https://opensource.org/license/mit",
    "bsd-2": "https://opensource.org/license/bsd-2-clause",
    "bsd": "https://opensource.org/license/bsd-3-clause",
    "psf": "https://docs.python.org/3/license.html",
    "python software foundation": "https://docs.python.org/3/license.html",
    "mozilla": "https://www.mozilla.org/MPL/2.0/",
    "mpl-2.0": "https://www.mozilla.org/MPL/2.0/",
    "isc": "https://opensource.org/license/isc-license-txt",
    "eclipse": "https://www.eclipse.org/legal/epl-2.0/",
    "epl-2.0": "https://www.eclipse.org/legal/epl-2.0/",
    "gplv2": "https://www.gnu.org/licenses/old-licenses/gpl-2.0.html",
    "lgpl": "https://www.gnu.org/licenses/lgpl-3.0.html",
}


def licence_url(distribution: importlib.metadata.Distribution) -> str | None:
    """Return the address of a distribution's licence text, where its metadata names one that is known."""
    metadata = cast(Message, distribution.metadata)
    classifiers = [text for text in metadata.get_all("Classifier") or [] if text.startswith("License")]
    named = " ".join([str(metadata.get("License-Expression") or ""), *classifiers,
                      str(metadata.get("License") or "")[:60]]).lower()  # fmt: skip
    for word, url in LICENCES.items():
        if re.search(rf"\b{re.escape(word)}\b", named):
            return url
    return None


def package_licence(package: str) -> str | None:
    """Return the licence address of an import package ("sklearn" is of the distribution scikit-learn)."""
    if package == "stdlib":
        return LICENCES["psf"]
    try:
        return licence_url(importlib.metadata.distribution(DISTRIBUTIONS.get(package, package)))
    except importlib.metadata.PackageNotFoundError:
        return None

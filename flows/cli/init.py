"""`headwater init`: a workspace of one's own, made of what is installed, as a clone would be.

A workspace holds the code too, since people add filters and stages to it and DVC runs the stages from there. So a
command that is called in a workspace is answered by the code that lies in it, not by what is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from flows.output import console
from flows.workspace.graph import GRAPH_FILE
from tasks.contracts.disk import disk_full_is_clear
from tasks.contracts.errors import InputError, UsageError
from tasks.contracts.stages import PACKAGES
from tasks.contracts.workspace import IMPORT_PATH, ROOT, import_path

CODE = ("flows", *PACKAGES)
BESIDE = "headwater_workspace"
"""Where a wheel has the files of a workspace that are not code (setup.py)."""
AS_HEADWATER = ["-c", "user.name=headwater init", "-c", "user.email=headwater@localhost", "-c", "commit.gpgsign=false"]
"""Not everybody has told git a name; who commits next does so as themselves."""


def init(folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")]) -> None:
    """Make a workspace: the code, the graph and the settings, to run and to extend, in git.

    Example: headwater init my-corpus
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            "a workspace is made in a new or an empty folder",
            where=str(folder.resolve()),
            found=f"{sum(1 for _ in folder.iterdir())} files and folders in it" if folder.is_dir() else "a file",
            fix="name another folder; a workspace that is there already is brought up to date by git",
        )
    git = shutil.which("git")
    if git is None:
        raise InputError("there is no git, which says of each release what code made it", fix="install git")
    with disk_full_is_clear(folder):
        for source, name in workspace_files():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
    for command in (["init", "-q"], ["add", "-A"], [*AS_HEADWATER, "commit", "-qm", "headwater init"]):
        done = subprocess.run([git, *command], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InputError(
                "the workspace is written, but git does not take it",
                where=str(folder.resolve()),
                found=(done.stderr or done.stdout).strip(),
                fix=f"set right what git says, then `git {' '.join(command)}` there",
            )
    console.print(
        f"a workspace is in {folder}: README.md says how to go on, and `cd {folder}` and `headwater run` is how.\n"
        "`make setup` there gives it an environment of its own, by the versions of constraints.txt.",
        soft_wrap=True,
    )


def workspace_files() -> Iterator[tuple[Path, Path]]:
    """Yield what a workspace holds: where each file is now, and its name in the workspace."""
    home = ROOT / BESIDE if (ROOT / BESIDE).is_dir() else ROOT
    listed = tomllib.loads((home / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["headwater"]["workspace"]
    for root, names in ((home, listed), (ROOT, CODE)):
        for name in names:
            place = root / name
            for path in [place] if place.is_file() else sorted(place.rglob("*")):
                if path.is_file() and path.suffix != ".pyc":
                    yield path, path.relative_to(root)


def use_own_code(words: Sequence[str]) -> None:
    """Go on as the code of the workspace that this is called in, where that is not the code that runs already."""
    here = Path.cwd()
    own, running = (root / "flows/cli/main.py" for root in (here, ROOT))
    if not (here / GRAPH_FILE).is_file() or not own.is_file() or own.resolve() == running:
        return
    os.environ[IMPORT_PATH] = import_path(here)
    os.execv(sys.executable, [sys.executable, "-m", "flows.cli.main", *words])

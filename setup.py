"""What pyproject.toml cannot say: a wheel also holds what stands beside the packages, for `headwater init`."""

import tomllib
from pathlib import Path
from shutil import copy

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

WORKSPACE = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["tool"]["headwater"]["workspace"]
BESIDE = "headwater_workspace"
"""The wheel's folder for them, in which flows/cli/init.py looks."""


def workspace_files() -> list[Path]:
    """Return the files of `[tool.headwater] workspace`; one that is listed and not there is an error."""
    listed = [Path(name) for name in WORKSPACE]
    if missing := [str(path) for path in listed if not path.exists()]:
        raise FileNotFoundError(f"pyproject.toml, [tool.headwater], lists what is not here: {', '.join(missing)}")
    inside = [path for name in listed for path in ([name] if name.is_file() else sorted(name.rglob("*")))]
    return [path for path in inside if path.is_file() and path.suffix != ".pyc"]


class BuildWithWorkspace(build_py):
    """The packages, and the workspace's other files in a folder beside them."""

    def run(self) -> None:
        super().run()
        for path in [] if self.editable_mode else workspace_files():
            target = Path(self.build_lib, BESIDE, path)
            self.mkpath(str(target.parent))
            copy(path, target)


class SourceWithWorkspace(sdist):
    """A source distribution from which the same wheel can be made."""

    def add_defaults(self) -> None:
        super().add_defaults()
        self.filelist.extend([str(path) for path in workspace_files()])


setup(cmdclass={"build_py": BuildWithWorkspace, "sdist": SourceWithWorkspace})

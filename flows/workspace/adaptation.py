"""The stages of an adaptation: a release learns from examples, and what comes of it is judged as any other.

They stand beside dvc.yaml's, which ends where this begins (docs/decisions/0021). The stages that both have are the same
code, on other folders.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from flows.workspace.graph import DATA, Stage
from tasks.contracts.manifest import MANIFEST_NAME
from tasks.contracts.release import BASE_FOLDER, RELEASE_FOLDER

FOLDER: Final = Path(DATA) / "adapt"
"""Where the folders of an adaptation's stages are."""
OWN_SECTIONS: Final = ("examples", "adapt")
"""The stages that only an adaptation has: they have sections of params.yaml of their own."""
BASE_DATA: Final = ("holdout", "mix")
"""What the gate asks of the base's own data: its items, and the text that it is compared with."""

_READS: Final[Mapping[str, tuple[str, ...]]] = {
    "examples": (),
    "filter": ("examples",),
    "decontaminate": ("filter", BASE_FOLDER),
    "adapt": ("decontaminate", BASE_FOLDER),
    "evaluate": ("adapt", "holdout"),
    "gate": ("evaluate", "adapt", "holdout", "mix", "decontaminate"),
    "release": ("examples", "filter", "decontaminate", "adapt", "evaluate", "gate", BASE_FOLDER),
}


def adaptation(base: Path) -> dict[str, Stage]:
    """Return the stages, in their order.

    Args:
        base: the release to begin with.
    """
    elsewhere = {BASE_FOLDER: base, **{name: Path(DATA) / name for name in BASE_DATA}}
    return {
        name: Stage(
            name=name,
            inputs={read: elsewhere.get(read, FOLDER / read) for read in reads},
            output=FOLDER / name,
            params=(name,),
        )
        for name, reads in _READS.items()
    }


def stages_behind(release: Path) -> Path:
    """Return the folder of the stages that made a release of this workspace: an adaptation's, or dvc.yaml's."""
    own = FOLDER / "release" / MANIFEST_NAME
    same = (
        own.is_file()
        and (release / MANIFEST_NAME).is_file()
        and own.read_bytes() == (release / MANIFEST_NAME).read_bytes()
    )
    return FOLDER if same else Path(DATA)


ADAPTATION: Final = adaptation(Path(RELEASE_FOLDER))
"""The stages of an adaptation of this workspace's own release."""

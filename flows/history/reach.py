"""All outputs that may hold a page: those in data/, those that kept releases were made from, and dvc.lock's.

A takedown must not read "it is not in data/" as "nobody has it": DVC removes a stage's output before it runs the stage
again, and a release outlives the data it was made from. So whatever names an output is followed here, from the
folders in data/, the kept releases, the run records and dvc.lock, by the chain of manifests. What is named and can be
read nowhere is a gap: the answer is incomplete then, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.history import run_records
from flows.history.chain import Link, find
from flows.history.digest import cached_files
from flows.history.kept_files import KeptFiles
from flows.history.releases import KnownRelease, known_releases
from flows.workspace.graph import load_graph
from tasks.contracts.durable_files import sha256_file
from tasks.contracts.errors import ManifestError
from tasks.contracts.files import DROPPED_FOLDER, is_part
from tasks.contracts.manifest import MANIFEST_NAME, Manifest, Shard

LOCK_FILE: Final = Path("dvc.lock")
LEDGERS: Final = ("crawl", "dedup")
"""Of these the ledger is read: other addresses of a page. Of others the documents are."""
IN_DATA: Final = "data"
MOST_NAMES_SHOWN: Final = 3


def text_stages() -> tuple[str, ...]:
    """Return the stages in whose documents a text stands as extracted, as dedup compares it, and as trained on."""
    return tuple(dict.fromkeys(("extract", *load_graph()["dedup"].inputs, "mix")))


def read_stages() -> tuple[str, ...]:
    """Return the stages in whose files pages, their texts and their other addresses stand."""
    return (*LEDGERS, *text_stages())


@dataclass(slots=True)
class Reach:
    """What can be looked at, and what cannot.

    Attributes:
        outputs: (stage, SHA-256 of its manifest) → the output.
        owners: the same → who has it: "data", or the SHA-256 of a release's manifest.
        unknown: what is named somewhere and of which not even a manifest is left, a sentence each.
    """

    files: KeptFiles
    outputs: dict[tuple[str, str], Link] = field(default_factory=dict)
    owners: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    releases: dict[str, KnownRelease] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def links(self, stage: str, owner: str | None = None) -> list[Link]:
        """Return the outputs of one stage, of one owner where one is named."""
        return [
            link
            for key, link in self.outputs.items()
            if key[0] == stage and (owner is None or owner in self.owners[key])
        ]

    def readable(self, link: Link) -> Iterator[tuple[Shard, Path]]:
        """Yield what can be read of an output's files about pages."""
        for shard in wanted(link):
            path = self.files.path(link, shard)
            if path is not None:
                yield shard, path

    def gaps(self) -> dict[tuple[str, str], list[str]]:
        """Return the outputs that cannot be read in full, with the names of the files that are nowhere."""
        found, read = {}, read_stages()
        for key, link in self.outputs.items():
            if key[0] in read:
                names = [shard.name for shard in wanted(link) if self.files.path(link, shard) is None]
                if names:
                    found[key] = names
        return found


def wanted(link: Link) -> list[Shard]:
    """Return the files of an output in which pages stand: its documents, or its ledger."""
    inside = f"{DROPPED_FOLDER}/" if link.name in LEDGERS else ""
    names = {s.name: s.name.removeprefix(inside) for s in link.manifest.shards if s.name.startswith(inside)}
    return [s for s in link.manifest.shards if is_part(names.get(s.name, ""), ".parquet")]


def look_around(data: Path) -> Reach:
    """Find every output that is in data/, behind a kept release, or listed in dvc.lock."""
    reach = Reach(files=KeptFiles(data))
    for stage in load_graph():
        standing = reach.files.standing(stage)
        if standing is not None and stage != "release":
            _follow(reach, data, stage, standing, IN_DATA)
    for release in known_releases():
        reach.releases[release.manifest_sha256] = release
        _follow(reach, data, "release", release.manifest_sha256, release.manifest_sha256)
    _follow_lock(reach, data)
    reach.unknown += [f"the run record {name} is gone, and with it what that run made" for name in _missing_records()]
    crawled = reach.files.standing("crawl")
    if crawled is not None and not any(link.manifest.inputs.get("crawl") == crawled for link in reach.links("extract")):
        reach.unknown.append("the pages of data/crawl have not been extracted yet (`headwater run --until filter`)")
    return reach


def _follow(reach: Reach, data: Path, name: str, sha256: str, owner: str) -> None:
    """Take in an output and all that it was made from."""
    todo = [(name, sha256)]
    while todo:
        key = todo.pop()
        if owner in reach.owners.get(key, ()):
            continue
        link = reach.outputs.get(key) or find(data, *key)
        if link is None:
            whose = "data/" if owner == IN_DATA else f"the release {owner[:12]}"
            sentence = f"data/{key[0]} with manifest {key[1][:12]}, which {whose} is made from: nothing is kept of it"
            if sentence not in reach.unknown:
                reach.unknown.append(sentence)
            continue
        reach.outputs[key] = link
        reach.owners.setdefault(key, set()).add(owner)
        todo += link.manifest.inputs.items()


def _follow_lock(reach: Reach, data: Path) -> None:
    """Take in what dvc.lock lists and data/ lacks: in a fresh clone, or after a run that was stopped."""
    if not LOCK_FILE.is_file():
        return
    try:
        stages = YAML(typ="safe").load(LOCK_FILE)["stages"]
        digests = {name: str(stages[name]["outs"][0]["md5"]) for name in stages if name in (*read_stages(), "release")}
    except (YAMLError, KeyError, TypeError, IndexError) as error:
        reach.unknown.append(f"dvc.lock cannot be read ({str(error).splitlines()[0]}), nor what it lists")
        return
    for name, digest in digests.items():
        if reach.files.standing(name) is not None:
            continue
        known = {reach.files.digest(link) for link in reach.links(name)}
        manifest = cached_files(digest).get(MANIFEST_NAME)
        if manifest is not None and manifest.is_file():
            sha256 = sha256_file(manifest)
            link = Link(
                name=name, sha256=sha256, manifest=Manifest.model_validate_json(manifest.read_bytes()), folder=None
            )
            reach.outputs.setdefault((name, sha256), link)
            reach.files.note_digest(link, digest)
            _follow(reach, data, name, sha256, IN_DATA)
        elif digest not in known:
            reach.unknown.append(
                f"data/{name}, which dvc.lock lists as {digest[:12]}, is neither in data/ nor in the DVC cache"
            )


def _missing_records() -> list[str]:
    try:
        return run_records.missing_records()
    except ManifestError as error:
        return [f"(all of them: {error.problem})"]


def describe_gap(key: tuple[str, str], names: list[str], of: int) -> str:
    """Return a gap as a sentence."""
    stage, sha256 = key
    listed = ", ".join(names[:MOST_NAMES_SHOWN]) + (" …" if len(names) > MOST_NAMES_SHOWN else "")
    return (
        f"data/{stage} with manifest {sha256[:12]}: {len(names)} of {of} files ({listed}) are neither in data/, "
        "the shard cache nor the DVC cache"
    )

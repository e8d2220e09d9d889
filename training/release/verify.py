"""Check a release with nothing but Python: `python3 -I verify.py [FOLDER] [--json] [--expect SHA256]`.

This file stands in every release and imports only the standard library (3.11 or newer), so that a stranger can read
it in one sitting and run it without installing or trusting anything of ours. It opens no connection and writes nothing.
Nor does it trust the folder: without -I, Python would take a json.py that stands beside this file for its own, so it
refuses to run. What is no ordinary file is not opened, and what it prints of the folder has no control characters.

A release's `_manifest.json` names the SHA-256 of each of its files, and that of the manifest of every stage which the
release was made from. Copies of those manifests stand in manifests/; each names the hash of the manifests before it,
back to the crawl. What follows are the claims that such a folder makes, each checked by one function below.

Whoever can change every file can also make a new, consistent chain. Against that helps only a hash from elsewhere:
take the manifest's SHA-256 from who published the release and give it as --expect.

Exit codes: 0 every claim that can be checked here holds, 1 one does not, 2 wrong use.
"""

import sys  # built into the interpreter: no file can stand in for it

if __name__ == "__main__" and not sys.flags.isolated:  # asked before anything is imported that a file could replace
    sys.stderr.write("verify.py: start it as `python3 -I verify.py`, or files beside it could pass as Python's own\n")
    raise SystemExit(2)

import argparse
import hashlib
import json
import math
import os
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any

MANIFEST = "_manifest.json"
BESIDE = ("TAKEDOWN.md", "takedown.json")
"""The mark that sources in a release were taken down. It may be added later."""
SIGNATURE = "model.sig"
"""The publisher's signature over all other files but that mark. It is added when the release is complete."""
MOST_JSON_BYTES = 64 << 20
"""Longest JSON file that is read; a release's own are far below."""
MOST_HEADER_BYTES = 100_000_000
"""Longest header of a safetensors file, as its format says."""
MOST_FILES = 1_000_000
DEEPEST = 32
MOST_BREAKS = 1000
"""Breaks of one claim after which no more are looked for."""
LONGEST_TEXT = 300
"""Characters that are shown of a text from the folder."""
ROUNDED = 1.5e-6
"""Figures are written with six decimals."""
TORCH_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
"""safetensors' names of types → PyTorch's, which are what training hashes."""


@dataclass(frozen=True)
class Break:
    """One thing that is not as claimed: where, what should be there, and what is."""

    where: str
    expected: str
    found: str


@dataclass(frozen=True)
class Result:
    """What came of checking one claim.

    Attributes:
        verdict: "pass", "fail" or "not checkable here".
        why: why it cannot be checked here, or what was looked at.
    """

    claim: str
    text: str
    verdict: str
    why: str
    breaks: tuple[Break, ...] = ()


class NotCheckableError(Exception):
    """The folder alone does not say whether the claim holds."""


def shown(text: object) -> str:
    """Return a text from outside as it may be printed: short, and without characters that steer a terminal.

    >>> shown("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    raw = str(text)
    cut = raw if len(raw) <= LONGEST_TEXT else raw[: LONGEST_TEXT - 3] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)


def open_file(path: Path) -> BufferedReader:
    """Open an ordinary file; a pipe, a device, a socket, a folder or a link is refused, and never waited for.

    Raises:
        OSError: it is none, or cannot be opened.
    """
    if (kind := kind_of(os.lstat(path).st_mode)) != "file":
        raise OSError(f"{path.name} is no file but a {kind}")
    opened = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    stream = os.fdopen(opened, "rb")
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        stream.close()
        raise OSError(f"{path.name} is no file any more")
    return stream


def kind_of(mode: int) -> str:
    """Name what a path is."""
    kinds = {stat.S_ISREG: "file", stat.S_ISDIR: "folder", stat.S_ISLNK: "link", stat.S_ISFIFO: "pipe"}
    kinds |= {stat.S_ISSOCK: "socket"}
    return next((name for is_kind, name in kinds.items() if is_kind(mode)), "device")


def is_plain(name: object) -> bool:
    """Say whether a name from a manifest is that of a file in the folder: no way out of it, nothing odd in it."""
    if not isinstance(name, str) or not name.isprintable() or "\\" in name or len(name) > 1000:
        return False
    return PurePosixPath(name).as_posix() == name and not name.startswith("/") and ".." not in name.split("/")


def parse(content: bytes) -> Any:
    """Read JSON that says each thing once; numbers are finite."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            raise ValueError("a key stands twice in one JSON object")
        return value

    def number(text: str) -> float:
        if not math.isfinite(value := float(text)):
            raise ValueError(f"{text[:40]} is no finite number")
        return value

    try:
        return json.loads(content, object_pairs_hook=once, parse_constant=number, parse_float=number)
    except RecursionError:
        raise ValueError("JSON that is nested too deep to be read") from None


class Release:
    """A release folder, its files read once."""

    def __init__(self, folder: Path, expect: str | None = None) -> None:
        self.folder, self.expect = folder, expect

    @cached_property
    def manifest(self) -> Any:
        """The release's own manifest."""
        return self.json(MANIFEST)

    @cached_property
    def listed(self) -> dict[str, Any]:
        """File name → its entry in the manifest."""
        return {entry["name"]: entry for entry in self.manifest["shards"]}

    @cached_property
    def kinds(self) -> dict[str, str]:
        """Everything in the folder by its name from here, and what it is; links are not followed."""
        kinds: dict[str, str] = {}
        waiting = [""]
        while waiting:
            place = waiting.pop()
            with os.scandir(self.folder / place) as entries:
                for entry in entries:
                    name = place + entry.name
                    kinds[name] = kind_of(entry.stat(follow_symlinks=False).st_mode)
                    if kinds[name] == "folder":
                        waiting.append(name + "/")
                    if len(kinds) > MOST_FILES or name.count("/") > DEEPEST:
                        raise ValueError(f"more than {MOST_FILES} files or {DEEPEST} folders deep: no release is")
        return kinds

    @cached_property
    def names(self) -> list[str]:
        """Everything in the folder that is not a folder, links included."""
        return sorted(name for name, kind in self.kinds.items() if kind != "folder")

    @cached_property
    def stages(self) -> dict[str, Any]:
        """Stage → the copy of its manifest."""
        return {PurePosixPath(name).stem: self.json(name) for name in self.names if name.startswith("manifests/")}

    @cached_property
    def lineage(self) -> Any:
        """lineage.json."""
        return self.json("lineage.json")

    @cached_property
    def gate(self) -> Any:
        """gate.json: the gate's report."""
        return self.json("gate.json")

    def json(self, name: str) -> Any:
        """Read a JSON file."""
        return parse(self.content(name))

    def items(self, name: str) -> list[Any]:
        """Read a file of one JSON value a line."""
        return [parse(line) for line in self.content(name).split(b"\n") if line.strip()]

    def content(self, name: str) -> bytes:
        """Read a short file whole."""
        with open_file(self.folder / name) as stream:
            if os.fstat(stream.fileno()).st_size > MOST_JSON_BYTES:
                raise ValueError(f"{name} is longer than {MOST_JSON_BYTES} bytes")
            return stream.read(MOST_JSON_BYTES)

    def sha256(self, name: str) -> str:
        """Hash a file's bytes, where there are as many as the manifest says (of itself: as many as are read)."""
        size = None if name == MANIFEST else self.listed.get(name, {}).get("bytes")
        return sha256_file(self.folder / name, MOST_JSON_BYTES if size is None else size)


def sha256_file(path: Path, most: int | None = None) -> str:
    """Return the SHA-256 (hex) of a file's bytes, "no such file", or that it has more than `most` bytes."""
    try:
        with open_file(path) as stream:
            if most is not None and os.fstat(stream.fileno()).st_size > most:
                return f"a file of more than {most} bytes"
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError):
        return "no such file"


def differs(where: str, expected: object, found: object) -> Iterator[Break]:
    """Yield a break unless the two are the same value of the same type."""
    if type(expected) is not type(found) or expected != found:
        yield Break(where, str(expected), str(found))


def check_form(release: Release) -> Iterator[Break]:
    """The manifest is whole and in the one form in which Headwater writes it."""
    content = release.content(MANIFEST)
    again = json.dumps(release.manifest, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    if again.encode() != content:
        yield Break(MANIFEST, "sorted keys, indented by 2, one line feed at the end", "another form")
    keys = ["counts", "inputs", "params", "schema_version", "shards", "stage", "unit"]
    yield from differs(f"{MANIFEST}, keys", keys, sorted(release.manifest))
    for key, value in {"stage": "release", "unit": "files", "schema_version": 1}.items():
        yield from differs(f"{MANIFEST}, {key}", value, release.manifest[key])
    files = len(release.manifest["shards"])
    yield from differs(f"{MANIFEST}, counts", {"dropped": {}, "in": files, "out": files}, release.manifest["counts"])
    names = [entry["name"] for entry in release.manifest["shards"]]
    yield from differs(f"{MANIFEST}, names of files", sorted(set(names)), names)


def check_names(release: Release) -> Iterator[Break]:
    """Every file that the manifest lists is there, and no other; each is an ordinary file."""
    for name in release.listed:
        if not is_plain(name):
            yield Break(f"{MANIFEST}, {name}", "the plain name of a file in this folder", "another")
    present = set(release.names) - {MANIFEST}
    for name in sorted(set(release.listed) - present):
        yield Break(name, "a file", release.kinds.get(name, "missing"))
    for name in sorted(present - set(release.listed) - {*BESIDE, SIGNATURE}):
        yield Break(name, "no such file in this release", "added")
    for name in release.names:
        if (kind := release.kinds[name]) != "file":
            yield Break(name, "a file", f"a {kind}")
    used = {parent.as_posix() for name in release.listed for parent in PurePosixPath(name).parents}
    for name, kind in sorted(release.kinds.items()):
        if kind == "folder" and name not in used:
            yield Break(name, "no such folder in this release", "added")


def check_contents(release: Release) -> Iterator[Break]:
    """Every file has the size and the SHA-256 that the manifest gives it."""
    for name, entry in release.listed.items():
        yield from differs(f"{MANIFEST}, keys of {name}", ["bytes", "name", "rows", "sha256"], sorted(entry))
        if release.kinds.get(name) != "file":
            yield Break(name, entry["sha256"], "no such file")
            continue
        size = os.lstat(release.folder / name).st_size
        yield from differs(f"{name}, bytes", entry["bytes"], size)
        if size == entry["bytes"]:  # else it is another file, of whatever length
            yield from differs(f"{name}, SHA-256", entry["sha256"], release.sha256(name))
        if name.endswith(".jsonl") and entry["rows"] is not None:
            yield from differs(f"{MANIFEST}, rows of {name}", len(release.items(name)), entry["rows"])
        elif not name.endswith(".parquet"):
            yield from differs(f"{MANIFEST}, rows of {name}", None, entry["rows"])


def check_settings(release: Release) -> Iterator[Break]:
    """The settings of the release in its manifest are those in lineage.json."""
    if "params" not in release.lineage:
        yield from differs(f"{MANIFEST}, name", release.lineage["name"], release.manifest["params"]["name"])
        raise NotCheckableError("this release was made before lineage.json held them; its name is the same in both")
    yield from differs(f"{MANIFEST}, params", release.lineage["params"], release.manifest["params"])


def check_chain(release: Release) -> Iterator[Break]:
    """The release names the manifests it was made from, each made from the ones before it, back to the crawl.

    So does a release whose weights training began with, in base/.
    """
    yield from chain_of_base("base/", release.stages["train"]["params"].get("started_from"), release)
    hashes = {stage: release.sha256(f"manifests/{stage}.json") for stage in release.stages}
    named, told = release.manifest["inputs"], release.lineage["stages"]
    yield from differs(f"{MANIFEST}, stages", sorted(hashes), sorted(named))
    yield from differs("lineage.json, stages", sorted(hashes), sorted(told))
    for stage in sorted(set(hashes) & set(named) & set(told)):
        yield from differs(f"{MANIFEST}, inputs, {stage}", hashes[stage], named[stage])
        yield from differs(f"lineage.json, {stage}", hashes[stage], told[stage]["manifest_sha256"])
    for stage, manifest in release.stages.items():
        yield from differs(f"manifests/{stage}.json, stage", stage, manifest["stage"])
        yield from differs(f"lineage.json, inputs of {stage}", manifest["inputs"], told.get(stage, {}).get("inputs"))
        for before, recorded in manifest["inputs"].items():
            where = f"manifests/{stage}.json, made from {before}"
            yield from differs(where, recorded, hashes.get(before, "no such manifest"))
        if not manifest["inputs"] and stage != "crawl":
            yield Break(f"manifests/{stage}.json, inputs", "what the stage was made from", "nothing")
    reached, waiting = set(), ["gate"]
    while waiting:
        stage = waiting.pop()
        if stage not in reached:
            reached.add(stage)
            waiting += release.stages.get(stage, {"inputs": {}})["inputs"]
    if "crawl" not in reached:
        yield Break("manifests/", "a chain from the gate to the crawl", "it ends at " + ", ".join(sorted(reached)))


def chain_of_base(place: str, named: Any, release: Release) -> Iterator[Break]:
    """Check the chain of the release that another one goes on from, and of what that one goes on from itself."""
    if named is None:
        if any(name.startswith(place) for name in release.names):
            yield Break(place, "nothing: training began with random weights", "a release")
        return
    if len(place) > 5 * DEEPEST:
        yield Break(place, "a chain that begins somewhere", f"more than {DEEPEST} releases")
        return
    yield from differs(f"{place}{MANIFEST}, SHA-256", named["release"], release.sha256(f"{place}{MANIFEST}"))
    manifest, lineage = release.json(f"{place}{MANIFEST}"), release.json(f"{place}lineage.json")
    yield from differs(f"{place}lineage.json, name", named["name"], lineage["name"])
    yield from differs(f"{place}lineage.json, weights_sha256", named["weights_sha256"], lineage["weights_sha256"])
    listed = {entry["name"]: entry["sha256"] for entry in manifest["shards"]}
    kept = [name.removeprefix(place) for name in release.names if name.startswith(place)]
    for name in kept:
        if name != MANIFEST:
            yield from differs(f"{place}{name}, SHA-256", listed.get(name), release.sha256(place + name))
    for stage, recorded in manifest["inputs"].items():
        yield from differs(f"{place}manifests/{stage}.json", recorded, release.sha256(f"{place}manifests/{stage}.json"))
    trained = "train"
    before = release.json(f"{place}manifests/{trained}.json")["params"].get("started_from")
    yield from chain_of_base(f"{place}base/", before, release)


def check_conservation(release: Release) -> Iterator[Break]:
    """No stage lost or invented a row, and none was lost between two stages."""
    for stage, manifest in release.stages.items():
        yield from conserved(stage, manifest)
        yield from handed_over(stage, release.stages)


def parts(manifest: Any) -> dict[str, int | None]:
    """Return a stage's parts of documents or pages, "part-00000" → rows; those of token shards are none."""
    entries = {entry["name"]: entry["rows"] for entry in manifest["shards"]}
    if any(name == "tokens.json" or name.endswith(".bin") for name in entries):
        return {}
    ends = (".parquet", ".warc.gz")
    return {n.partition(".")[0]: rows for n, rows in entries.items() if n.startswith("part-") and n.endswith(ends)}


def conserved(stage: str, manifest: Any) -> Iterator[Break]:
    """Check that a stage's counts add up, and that its files hold as many documents as it says it kept."""
    counts = manifest["counts"]
    total = counts["out"] + sum(counts["dropped"].values())
    yield from differs(f"{stage}, in against out + dropped", counts["in"], total)
    files = parts(manifest)
    rows = [number for number in files.values() if number is not None]
    if rows and len(rows) == len(files):
        yield from differs(f"{stage}, out against the rows of its files", counts["out"], sum(rows))


def handed_over(stage: str, stages: dict[str, Any]) -> Iterator[Break]:
    """Check that a stage took in what the one before it put out.

    Which one that is, the manifests say: of all that the stage was made from, those with parts that no other of them
    was made from. So a stage that is new here is checked as well.
    """
    manifest = stages[stage]
    unit, counts, settings = manifest["unit"], manifest["counts"], manifest["params"]
    given = [name for name in manifest["inputs"] if name in stages]
    if unit in ("documents", "records"):
        holding = [name for name in given if parts(stages[name])]
        older = {before for name in holding for before in made_from(name, stages)}
        sources = [name for name in holding if name not in older]
        if sources:
            out = sum(stages[name]["counts"]["out"] for name in sources)
            yield from differs(f"documents out of {' and '.join(sources)} and into {stage}", out, counts["in"])
        if len(sources) == 1 and parts(manifest):
            made, own = parts(stages[sources[0]]), parts(manifest)
            yield from differs(f"shards out of {sources[0]} and into {stage}", sorted(made), sorted(own))
    for name in given:
        files = {entry["name"]: entry for entry in stages[name]["shards"]}
        size = sum(e["bytes"] for n, e in files.items() if n.startswith("part-") and n.endswith(".bin"))
        if unit == "tokens" and size:
            size *= settings.get("epochs") or 1
            if counts["in"] not in (size // 2, size // 4):  # an id takes two bytes, or four
                yield Break(f"tokens out of {name} and into {stage}", f"{size // 2} or {size // 4}", str(counts["in"]))
        for task in settings.get("tasks") or () if unit == "items" else ():
            offered = files.get(f"tasks/{task}.jsonl", {}).get("rows")
            if offered is not None:
                taken = [e["rows"] for e in manifest["shards"] if e["name"] == f"samples/{task}.jsonl"]
                expected = [min(offered, settings.get("limit") or offered)]
                yield from differs(f"items of {task} out of {name} and into {stage}", expected, taken)


def made_from(stage: str, stages: dict[str, Any]) -> set[str]:
    """Return every stage that a stage was made from."""
    reached, waiting = set[str](), [stage]
    while waiting:
        before = [name for name in stages.get(waiting.pop(), {"inputs": {}})["inputs"] if name not in reached]
        reached.update(before)
        waiting += before
    return reached


def check_copies(release: Release) -> Iterator[Break]:
    """The model, the scores and the gate's report are the files that the stages train, evaluate and gate made."""
    for stage, prefix, place in (
        ("train", "model/", ""),
        ("train", "base/", "base/"),
        ("evaluate", "", "evaluation/"),
        ("gate", "report.json", ""),
    ):
        for entry in release.stages[stage]["shards"]:
            if entry["name"].startswith(prefix):
                name = "gate.json" if stage == "gate" else place + entry["name"].removeprefix(prefix)
                yield from differs(f"{name}, from {stage}", entry["sha256"], release.sha256(name))
    made = {entry["name"] for entry in release.stages["train"]["shards"]}
    for name in release.names:
        if name.endswith(".safetensors") and f"model/{name}" not in made:
            yield Break(name, "weights that the stage train made", "others")


def check_weights(release: Release) -> Iterator[Break]:
    """The tensors are those that training ended with: their hash is the one it wrote."""
    found = weights_sha256([release.folder / name for name in release.names if name.endswith(".safetensors")])
    yield from differs("lineage.json, weights_sha256", release.lineage["weights_sha256"], found)
    yield from differs("gate.json, weights_sha256", release.gate["weights_sha256"], found)


def weights_sha256(files: list[Path]) -> str:
    """Return the hash over name, type, shape and bytes of each tensor, sorted by name.

    A safetensors file is the length of its header (8 bytes, little-endian), the header (JSON) and the tensors' bytes,
    which follow each other without a gap: so each byte is hashed once, whatever the header says.
    """
    tensors: dict[str, tuple[Path, int, Any]] = {}
    for path in files:
        with open_file(path) as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            if size > MOST_HEADER_BYTES:
                raise ValueError(f"{path.name} has a header of {size} bytes")
            header = parse(stream.read(size))
            end = os.fstat(stream.fileno()).st_size - 8 - size
        own = {name: (path, 8 + size, about) for name, about in header.items() if name != "__metadata__"}
        at = 0
        for first, last in sorted(about["data_offsets"] for _, _, about in own.values()):
            if first != at or last < first:
                raise ValueError(f"the tensors of {path.name} overlap or leave a gap at byte {at}")
            at = last
        if at != end or own.keys() & tensors.keys():
            raise ValueError(f"the tensors of {path.name} are not all that it holds, or stand in two files")
        tensors |= own
    digest = hashlib.sha256()
    for name, (path, base, about) in sorted(tensors.items()):
        digest.update(f"{name} torch.{TORCH_TYPES[about['dtype']]} {about['shape']}\n".encode())
        left = about["data_offsets"][1] - about["data_offsets"][0]
        with open_file(path) as stream:
            stream.seek(base + about["data_offsets"][0])
            while left and (piece := stream.read(min(left, 1 << 20))):
                digest.update(piece)
                left -= len(piece)
    return digest.hexdigest()


def check_scores(release: Release) -> Iterator[Break]:
    """The figures of the evaluation are those of its items, and the gate's verdicts are those of its figures."""
    results = release.json("evaluation/results.json")["tasks"]
    kept = {name for name in release.names if name.startswith("evaluation/samples/")}
    for task, figures in results.items():
        name = f"evaluation/samples/{task}.jsonl"
        if name not in kept:
            yield Break(name, "the scores of each item", "missing")
            continue
        items = release.items(name)
        yield from differs(f"{name}, items", figures["items"], len(items))
        yield from differs(f"{name}, items named once", len(items), len({item["item_id"] for item in items}))
        for metric, again in figures_of(items).items():
            told = figures.get(metric)
            if told is not None and abs(told - again) > ROUNDED * max(1, abs(again)):
                yield Break(f"evaluation/results.json, {task}, {metric}", f"{again:.6f}, from its items", str(told))
    for rule in release.gate["rules"]:
        if rule.get("by") is None:
            continue
        end = rule[rule["bound"]]
        if abs(abs(end - rule["threshold"]) - abs(rule["by"])) > 2 * ROUNDED:
            expected = f"{end - rule['threshold']:.6f} or its opposite: from {rule['bound']} and threshold"
            yield Break(f"gate.json, rule {rule['rule']}, by", expected, str(rule["by"]))
        yield from differs(f"gate.json, rule {rule['rule']}, verdict", rule["by"] > 0, rule["verdict"] == "pass")
        if not rule["low"] <= rule["value"] <= rule["high"]:
            yield Break(f"gate.json, rule {rule['rule']}", "a value within its interval", str(rule["value"]))


def figures_of(items: list[Any]) -> dict[str, float]:
    """Return the figures that follow from the scores of single items: means, and bits per byte from nats and bytes."""
    names = {name for item in items for name in item} - {"item_id", "doc_id", "nats", "bytes"}
    figures = {}
    for name in sorted(names):
        values = [item[name] for item in items if isinstance(item.get(name), int | float)]
        if len(values) == len(items):
            figures[name] = math.fsum(values) / len(values)
    if items and all("nats" in item and "bytes" in item for item in items):
        nats = math.fsum(item["nats"] for item in items) / sum(item["bytes"] for item in items)
        figures |= {"bits_per_byte": nats / math.log(2), "byte_perplexity": math.exp(nats)}
    return figures


def check_gate(release: Release) -> Iterator[Break]:
    """The gate passed the release, by every one of its rules."""
    yield from differs("gate.json, verdict", "pass", release.gate["verdict"])
    if not release.gate["rules"]:
        yield Break("gate.json, rules", "at least one", "none")
    for rule in release.gate["rules"]:
        if rule["verdict"] != "not applicable":
            yield from differs(f"gate.json, rule {rule['rule']}", "pass", rule["verdict"])


def check_policy(release: Release) -> Iterator[Break]:
    """The gate judged by the policy that was hashed into the training manifest before the first step."""
    trained, judged = release.stages["train"]["params"], release.stages["gate"]["params"]
    if "policy_sha256" not in trained:
        raise NotCheckableError("manifests/train.json holds no policy_sha256")
    fixed = trained["policy_sha256"]
    yield from differs("gate.json, policy_sha256", fixed, release.gate["policy_sha256"])
    if "policy" not in trained or "tasks" not in trained:
        raise NotCheckableError("the hashes agree, but manifests/train.json does not hold the policy itself")
    again = policy_sha256(trained["policy"], trained["tasks"])
    yield from differs("manifests/train.json, the policy's hash", fixed, again)
    own = {name: judged.get(name) for name in trained["policy"]}
    again = policy_sha256(own, judged.get("tasks"))
    yield from differs("manifests/gate.json, the policy's hash", fixed, again)


def policy_sha256(policy: Any, tasks: Any) -> str:
    """Return the hash over the policy and the tasks it scores, as JSON with sorted keys and no spaces."""
    value = {"gate": policy, "tasks": tasks}
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def check_published(release: Release) -> Iterator[Break]:
    """The manifest is the one that was published."""
    if release.expect is None:
        raise NotCheckableError(f"compare {release.sha256(MANIFEST)} with what the publisher says, or give --expect")
    yield from differs(f"{MANIFEST}, SHA-256", release.expect, release.sha256(MANIFEST))


def check_signature(release: Release) -> Iterator[Break]:
    """The publisher's key signed these files."""
    if SIGNATURE not in release.names:
        raise NotCheckableError(f"no signature stands here ({SIGNATURE})")
    raise NotCheckableError(
        f"a signature stands here, which the standard library cannot check: with the publisher's public key, "
        f"`model_signing verify key . --signature {SIGNATURE} --public_key FILE` can (pip install model-signing)"
    )


CLAIMS: dict[str, Callable[[Release], Iterator[Break]]] = {
    "form": check_form,
    "names": check_names,
    "contents": check_contents,
    "settings": check_settings,
    "chain": check_chain,
    "conservation": check_conservation,
    "copies": check_copies,
    "weights": check_weights,
    "scores": check_scores,
    "gate": check_gate,
    "policy": check_policy,
    "published": check_published,
    "signature": check_signature,
}


def check_claim(name: str, text: str, breaks: Callable[[], Iterator[Break]]) -> Result:
    """Check one claim; a file so broken that it cannot be read is a break too."""
    found: list[Break] = []
    why = ""
    try:
        for one in breaks():
            found.append(Break(shown(one.where), shown(one.expected), shown(one.found)))
            if len(found) == MOST_BREAKS:
                why = f"the first {MOST_BREAKS} breaks are shown"
                break
    except NotCheckableError as error:
        why = shown(error)
    except Exception as error:  # whatever a file can be, it is a break and no traceback
        found.append(Break(name, "files that can be read", shown(f"{type(error).__name__}: {error}")))
    verdict = "fail" if found else "not checkable here" if why else "pass"
    return Result(name, text, verdict, why, tuple(found))


def check_release(folder: Path, expect: str | None = None) -> list[Result]:
    """Check every claim of a release folder."""
    release = Release(folder, expect)
    return [
        check_claim(name, str(check.__doc__), lambda check=check: check(release))  # type: ignore[misc]
        for name, check in CLAIMS.items()
    ]


def report(folder: Path, results: list[Result]) -> dict[str, Any]:
    """Return all results as one JSON value, with the first broken link by itself."""
    broken = [(result.claim, one) for result in results for one in result.breaks]
    return {
        "folder": shown(folder.absolute()),
        "verdict": "fail" if broken else "pass",
        "manifest_sha256": sha256_file(folder / MANIFEST, MOST_JSON_BYTES),
        "first_break": {"claim": broken[0][0], **asdict(broken[0][1])} if broken else None,
        "takedown_marks": [name for name in BESIDE if os.path.lexists(folder / name)],
        "claims": [asdict(result) for result in results],
    }


def as_text(told: dict[str, Any]) -> str:
    """Return the report for people."""
    lines = [f"checked: {told['folder']}", ""]
    for claim in told["claims"]:
        lines.append(f"{claim['verdict']:<18}  {claim['claim']}: {claim['text']}")
        if claim["why"]:
            lines.append(f"{'':<18}    {claim['why']}")
        lines += [f"{'':<18}    {b['where']}: {b['found']}, not {b['expected']}" for b in claim["breaks"][:5]]
        if len(claim["breaks"]) > 5:
            lines.append(f"{'':<18}    and {len(claim['breaks']) - 5} more")
    if told["takedown_marks"]:
        lines.append("read first: sources of this release were taken down; see " + ", ".join(told["takedown_marks"]))
    if first := told["first_break"]:
        lines += ["", f"FAIL: the first broken link is {first['where']}"]
        lines += [f"  expected: {first['expected']}", f"  found: {first['found']}"]
        if told["manifest_sha256"] == "no such file":
            lines += [f"  no release stands in {told['folder']}: to check another folder, name it behind the command"]
    else:
        lines += ["", "PASS: every claim that can be checked here holds"]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Check a folder and say what was found."""
    parser = argparse.ArgumentParser(prog="verify.py", description="Check a Headwater release offline.")
    parser.add_argument(
        "folder", nargs="?", default=".", type=Path, help="the release folder; by default the current one"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--expect", metavar="SHA256", help=f"SHA-256 of {MANIFEST} as it was published")
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        parser.error(f"there is no folder {shown(options.folder)}")
    told = report(options.folder, check_release(options.folder, options.expect))
    text = json.dumps(told, indent=2) + "\n" if options.json else as_text(told)
    encoding = sys.stdout.encoding or "ascii"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    return 0 if told["verdict"] == "pass" else 1


if __name__ == "__main__":
    sys.exit(main())

"""Check a release with nothing but Python: `python verify.py [FOLDER] [--json] [--expect SHA256]`.

This file stands in every release and imports only the standard library (3.11 or newer), so that a stranger can read
it in one sitting and run it without installing or trusting anything of ours. It opens no connection and writes nothing.

A release's `_manifest.json` names the SHA-256 of each of its files, and that of the manifest of every stage which the
release was made from. Copies of those manifests stand in manifests/; each names the hash of the manifests before it,
back to the crawl. What follows are the claims that such a folder makes, each checked by one function below.

Whoever can change every file can also make a new, consistent chain. Against that helps only a hash from elsewhere:
take the manifest's SHA-256 from who published the release and give it as --expect.

Exit codes: 0 every claim that can be checked here holds, 1 one does not, 2 wrong use.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

MANIFEST = "_manifest.json"
BESIDE = ("TAKEDOWN.md", "takedown.json")
"""The mark that sources in a release were taken down. It may be added later."""
SIGNATURE = "model.sig"
"""The publisher's signature over all other files but that mark. It is added when the release is complete."""
HAND_OVER = ("extract", "filter", "dedup", "perplexity", "holdout", "decontaminate", "mix")
"""Stages that take all documents of the one before: what one puts out, the next one takes in."""
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
    def names(self) -> list[str]:
        """Everything in the folder that is not a folder, links included, by its name from here."""
        paths = self.folder.rglob("*")
        return sorted(p.relative_to(self.folder).as_posix() for p in paths if p.is_symlink() or not p.is_dir())

    @cached_property
    def stages(self) -> dict[str, Any]:
        """Stage → the copy of its manifest."""
        return {Path(name).stem: self.json(name) for name in self.names if name.startswith("manifests/")}

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
        return json.loads((self.folder / name).read_bytes())

    def sha256(self, name: str) -> str:
        """Hash a file's bytes."""
        return sha256_file(self.folder / name)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes, or "no such file"."""
    if not path.is_file():
        return "no such file"
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def differs(where: str, expected: object, found: object) -> Iterator[Break]:
    """Yield a break unless the two are the same value of the same type."""
    if type(expected) is not type(found) or expected != found:
        yield Break(where, str(expected), str(found))


def check_form(release: Release) -> Iterator[Break]:
    """The manifest is whole and in the one form in which Headwater writes it."""
    content = (release.folder / MANIFEST).read_bytes()
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
    """Every file that the manifest lists is there, and no other."""
    present = set(release.names) - {MANIFEST}
    for name in sorted(set(release.listed) - present):
        yield Break(name, "a file", "missing")
    for name in sorted(present - set(release.listed) - {*BESIDE, SIGNATURE}):
        yield Break(name, "no such file in this release", "added")
    for name in release.names:
        if (release.folder / name).is_symlink():
            yield Break(name, "a file", "a link")


def check_contents(release: Release) -> Iterator[Break]:
    """Every file has the size and the SHA-256 that the manifest gives it."""
    for name, entry in release.listed.items():
        path = release.folder / name
        yield from differs(f"{MANIFEST}, keys of {name}", ["bytes", "name", "rows", "sha256"], sorted(entry))
        if not path.is_file():
            yield Break(name, entry["sha256"], "no such file")
            continue
        yield from differs(f"{name}, bytes", entry["bytes"], path.stat().st_size)
        yield from differs(f"{name}, SHA-256", entry["sha256"], release.sha256(name))
        if not name.endswith(".parquet"):
            yield from differs(f"{MANIFEST}, rows of {name}", None, entry["rows"])


def check_settings(release: Release) -> Iterator[Break]:
    """The settings of the release in its manifest are those in lineage.json."""
    if "params" not in release.lineage:
        yield from differs(f"{MANIFEST}, name", release.lineage["name"], release.manifest["params"]["name"])
        raise NotCheckableError("this release was made before lineage.json held them; its name is the same in both")
    yield from differs(f"{MANIFEST}, params", release.lineage["params"], release.manifest["params"])


def check_chain(release: Release) -> Iterator[Break]:
    """The release names the manifests it was made from, each made from the ones before it, back to the crawl."""
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


def check_conservation(release: Release) -> Iterator[Break]:
    """No stage lost or invented a row, and none was lost between two stages."""
    for stage, manifest in release.stages.items():
        yield from conserved(stage, manifest)
    for before, after in pairwise(HAND_OVER):
        if before in release.stages and after in release.stages:
            out, taken = release.stages[before]["counts"]["out"], release.stages[after]["counts"]["in"]
            yield from differs(f"documents out of {before} and into {after}", out, taken)


def conserved(stage: str, manifest: Any) -> Iterator[Break]:
    """Check that a stage's counts add up, and that its files hold as many documents as it says it kept."""
    counts = manifest["counts"]
    total = counts["out"] + sum(counts["dropped"].values())
    yield from differs(f"{stage}, in against out + dropped", counts["in"], total)
    parts = [s for s in manifest["shards"] if s["name"].startswith("part-") and s["name"].endswith(".parquet")]
    if stage in HAND_OVER and parts:
        yield from differs(f"{stage}, out against the rows of its files", counts["out"], sum(s["rows"] for s in parts))


def check_copies(release: Release) -> Iterator[Break]:
    """The model, the scores and the gate's report are the files that the stages train, evaluate and gate made."""
    for stage, prefix, place in (("train", "model/", ""), ("evaluate", "", "evaluation/"), ("gate", "report.json", "")):
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

    A safetensors file is the length of its header (8 bytes, little-endian), the header (JSON) and the tensors' bytes.
    """
    tensors: dict[str, tuple[Path, int, Any]] = {}
    for path in files:
        with path.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(size, path.stat().st_size)))
        tensors |= {name: (path, 8 + size, about) for name, about in header.items() if name != "__metadata__"}
    digest = hashlib.sha256()
    for name, (path, base, about) in sorted(tensors.items()):
        digest.update(f"{name} torch.{TORCH_TYPES[about['dtype']]} {about['shape']}\n".encode())
        left = about["data_offsets"][1] - about["data_offsets"][0]
        with path.open("rb") as stream:
            stream.seek(base + about["data_offsets"][0])
            while left and (piece := stream.read(min(left, 1 << 20))):
                digest.update(piece)
                left -= len(piece)
    return digest.hexdigest()


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
            found.append(one)
    except NotCheckableError as error:
        why = str(error)
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError, struct.error) as error:
        found.append(Break(name, "files that can be read", f"{type(error).__name__}: {error}"))
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
        "verdict": "fail" if broken else "pass",
        "manifest_sha256": sha256_file(folder / MANIFEST),
        "first_break": {"claim": broken[0][0], **asdict(broken[0][1])} if broken else None,
        "takedown_marks": [name for name in BESIDE if (folder / name).is_file()],
        "claims": [asdict(result) for result in results],
    }


def as_text(told: dict[str, Any]) -> str:
    """Return the report for people."""
    lines = []
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
    else:
        lines += ["", "PASS: every claim that can be checked here holds"]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Check a folder and say what was found."""
    parser = argparse.ArgumentParser(prog="verify.py", description="Check a Headwater release offline.")
    parser.add_argument("folder", nargs="?", default=".", type=Path, help="the release folder; by default this one")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--expect", metavar="SHA256", help=f"SHA-256 of {MANIFEST} as it was published")
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        parser.error(f"there is no folder {options.folder}")
    told = report(options.folder, check_release(options.folder, options.expect))
    sys.stdout.write(json.dumps(told, indent=2) + "\n" if options.json else as_text(told))
    return 0 if told["verdict"] == "pass" else 1


if __name__ == "__main__":
    sys.exit(main())

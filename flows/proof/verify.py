"""All checks of a release, and of the workspace that made it: claim by claim, each named where it breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from flows.proof import verify_again, verify_documents, verify_figures, verify_files
from tasks.contracts.errors import HeadwaterError, InputError, UsageError
from tasks.contracts.manifest import MANIFEST_NAME
from tasks.contracts.release import LINEAGE_NAME, MANIFESTS_FOLDER
from training.release.signing import check_public_key, differences, find_signature, signer_of
from training.release.verify import (
    MOST_JSON_BYTES,
    SIGNATURE,
    Break,
    NotCheckableError,
    Result,
    check_claim,
    check_release,
    report,
    sha256_file,
)

Check = tuple[str, Callable[[], Iterator[Break]]]


def check_all(
    release: Path,
    data: Path,
    *,
    sample: int | None = None,
    expect: str | None = None,
    public_key: Path | None = None,
) -> list[Result]:
    """Check a release, the workspace's folders, and with `sample` what can be made again."""
    found = [
        check_claim("signature", one.text, lambda: signature(release, public_key)) if one.claim == "signature" else one
        for one in check_release(release, expect)
    ]
    names = _stages(release)
    checks = workspace_checks(release, data, names)
    if sample is not None:
        checks |= deep_checks(data, names, sample)
    ours = _same_release(release, data)
    for name, (text, check) in checks.items():
        found.append(check_claim(name, text, lambda check=check: guarded(check, ours=ours)))  # type: ignore[misc]
    return found


def refuse_broken(release: Path, public_key: Path | None = None) -> None:
    """Let nobody use a release of which a claim that its folder makes does not hold.

    Raises:
        UsageError: it is none.
        InputError: a claim does not hold.
    """
    if not (release / MANIFEST_NAME).is_file() or not (release / LINEAGE_NAME).is_file():
        raise UsageError("there is no such release", where=str(release), fix="name a release's folder, or run first")
    if public_key is not None:
        check_public_key(public_key)
    results = [
        check_claim("signature", one.text, lambda: signature(release, public_key)) if one.claim == "signature" else one
        for one in check_release(release)
    ]
    if broken := report(release, results)["first_break"]:
        raise InputError(
            "this release is not what it claims to be",
            where=broken["where"],
            expected=broken["expected"],
            found=broken["found"],
            fix="`headwater verify` says all that is wrong",
        )


def workspace_checks(release: Path, data: Path, names: list[str]) -> dict[str, Check]:
    """Return the checks that read the workspace's files once: claim → what it says, and what checks it."""
    return {
        "folders": (
            "Every file of every stage is as the stage's manifest says, and none is a link or was added.",
            lambda: verify_files.folders(data, names),
        ),
        "counted": (
            "Files and ledgers hold as many rows as the counts say, and what a stage put out the next one took in.",
            lambda: verify_files.counted(data, names),
        ),
        "stages": (
            "The stages' manifests are those that the release was made from.",
            lambda: verify_files.stages(release, data, names),
        ),
        "records": (
            "No run record, and no manifest kept with them, was changed, removed or added.",
            verify_files.records,
        ),
        "recorded": (
            "A run record names the manifest of each stage and of the release.",
            lambda: verify_files.recorded(data),
        ),
    }


def deep_checks(data: Path, names: list[str], sample: int) -> dict[str, Check]:
    """Return the checks that make things again: of everything, but for what their text says is a sample."""
    again = verify_again
    tokens = None if again.all_tokens(data) else sample
    some = "Every" if tokens is None else f"{sample} of all, each"
    return {
        "params": (
            "params.yaml, dvc.lock, run records and manifests agree, and dvc.lock names what is on the disk.",
            lambda: verify_files.settings(data, names),
        ),
        "documents": (
            "Every document of every stage is the one before it with the ledger's edits, or dropped there, once.",
            lambda: verify_documents.documents(data, names),
        ),
        "warc": ("Every WARC record has the digests that it was written with.", lambda: again.warc_digests(data)),
        "texts": (f"{sample} documents come out of their records again.", lambda: again.texts(data, sample)),
        "items": ("The evaluation's items come out of the held-out documents again.", lambda: again.items(data)),
        "protected": (
            "Of each benchmark, as many items were looked for as decontaminate says, and the others are named.",
            lambda: verify_figures.protected(data),
        ),
        "mixed": (
            "mixture.json says what there was of each group, and what the mixture took.",
            lambda: verify_figures.mixed(data),
        ),
        "tokens": (
            f"{some} document gives the tokens of its shard again; indices are compared throughout.",
            lambda: again.tokens(data, tokens),
        ),
        "batches": (f"{some} training step saw what its hash says.", lambda: again.batches(data, tokens)),
        "tokens_counted": (
            "tokens.json says what the token shards and their indices hold.",
            lambda: verify_figures.counts(data),
        ),
        "tokenizer_measured": (
            "The tokenizer measures on the mixture as it did.",
            lambda: verify_figures.measured(data),
        ),
        "trained": (
            "Training's figures are those of its order, its weights and its table of losses.",
            lambda: verify_figures.trained(data),
        ),
        "copied": (
            "The tokenizer beside the model is the one that was learnt, and the model's configs are those of train.",
            lambda: again.copies(data),
        ),
        "figures": ("The evaluation's figures come out of its items' scores again.", lambda: again.scores(data)),
        "judged": ("The gate's rules find the same of the items' scores again.", lambda: again.gate(data)),
        "papers": (
            "The release is assembled of the stages' folders again, papers and all.",
            lambda: verify_figures.papers(data),
        ),
    }


def signature(release: Path, public_key: Path | None) -> Iterator[Break]:
    """Check the signature that stands in the release, or in this workspace's copy of it."""
    signed = find_signature(release)
    if public_key is None:
        if signed is None:
            raise NotCheckableError("no signature stands here")
        raise NotCheckableError(f"{signed} was made with the key {signer_of(signed)}: give its file, --public-key")
    if signed is None:
        yield Break(str(release / SIGNATURE), "a signature by the key that was given", "no signature")
        return
    yield from differences(release, signed, public_key)


def guarded(check: Callable[[], Iterator[Break]], *, ours: bool) -> Iterator[Break]:
    """Turn an error that says what is wrong with a file into a break."""
    if not ours:
        raise NotCheckableError("data/ holds another release than this one")
    try:
        yield from check()
    except HeadwaterError as error:
        yield Break(error.where or "workspace", error.expected or "what can be read", error.found or error.problem)


def _same_release(release: Path, data: Path) -> bool:
    current = data / "release"
    return release.resolve() == current.resolve() or (
        (current / MANIFEST_NAME).is_file()
        and sha256_file(release / MANIFEST_NAME, MOST_JSON_BYTES) == sha256_file(current / MANIFEST_NAME)
    )


def _stages(release: Path) -> list[str]:
    return sorted(path.stem for path in (release / MANIFESTS_FOLDER).glob("*.json"))

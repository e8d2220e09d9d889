"""data_card.md of a release: what the training text is, where it is from, and what was done to it.

Questions in the order of Gebru et al., "Datasheets for Datasets" (CACM 2021): collection, preprocessing, uses.
"""

from __future__ import annotations

from typing import Any

from tasks.contracts.http_responses import REFUSALS
from tasks.contracts.stages import does
from training.release.papers.facts import Facts
from training.release.papers.markdown import SHARE_HEADERS, cell, counted, page, share_of, share_rows, table


def data_card(facts: Facts) -> bytes:
    """Return data_card.md."""
    total, tokens, sources = facts.sources.total, facts.tokens, facts.sources
    lines = [
        f"# Data card of {facts.name}",
        "",
        f"Training text: {total.documents:,} documents, {tokens['bytes']:,} bytes, {tokens['tokens']:,} tokens in "
        f"the shards (repeated copies included); {facts.training['tokens_seen']:,} tokens trained on.",
        f"Fetched from {sources.first_captured or 'an unknown time'} to {sources.last_captured or 'an unknown time'}.",
        *_base(facts),
        "",
        "## Stages",
        "",
        *table(["stage", "what it does", "counts", "in", "out", "dropped"], _stage_rows(facts), right=3),
        "Nothing is lost between the columns: in = out + dropped, checked when each manifest was written.",
        "",
        "## What was taken out, by rule",
        "",
        *table(["stage", "rule", "dropped", "of what came in"], _drop_rows(facts), right=2),
        *_edits(facts),
    ]
    for heading, name, shares in (
        ("Sources of the training text", "host", sources.hosts),
        ("Domains", "registered domain", sources.domains),
        ("Languages", "language", sources.languages),
        ("Licences", "licence that the page names", sources.licenses),
        ("Kinds of source", "source", sources.sources),
    ):
        lines += [f"## {heading}", ""]
        lines += table([name, *SHARE_HEADERS], share_rows(shares, total), right=1)
    lines += _opt_outs(facts)
    lines += _personal_data(facts)
    lines += _measured_on(facts)
    lines += ["## Mixture", "", *table(_MIXTURE, _mixture_rows(facts), right=2)]
    lines += _snapshot(facts)
    return page(lines)


def _base(facts: Facts) -> list[str]:
    if facts.base is None:
        return []
    said = f"Not counted here is the training text of {facts.base.name}, whose weights training began with: the data "
    return ["", said + f"card of that release has it (SHA-256 of its manifest `{facts.base.release}`)."]


def _stage_rows(facts: Facts) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for stage in facts.stages:
        manifest = facts.manifests[stage]
        counts = manifest.counts
        gone = sum(counts.dropped.values())
        rows.append((stage, does(stage), manifest.unit, counts.in_, counts.out, gone))
    return rows


def _drop_rows(facts: Facts) -> list[tuple[object, ...]]:
    return [
        (stage, f"`{rule}`", number, share_of(number, facts.manifests[stage].counts.in_))
        for stage in facts.stages
        for rule, number in sorted(facts.dropped(stage).items(), key=lambda item: (-item[1], item[0]))
    ]


def _edits(facts: Facts) -> list[str]:
    rows = [
        (stage, what, f"`{rule}`", number)
        for stage in facts.text_stages
        for what, by_stage in (("changed", facts.edits.changed), ("marked, unchanged", facts.edits.marked))
        for rule, number in by_stage.get(stage, {}).items()
    ]
    if not rows:
        return []
    lines = ["Documents that were changed, or only marked in the ledger, and went on:", ""]
    return lines + table(["stage", "what", "rule", "documents"], rows, right=3)


def opt_out_policy(facts: Facts) -> dict[str, Any]:
    """Return what each reservation did to a page, as it was set: signal → drop, mark or keep."""
    policy = facts.manifests["extract"].params.get("opt_out")
    return dict(policy) if isinstance(policy, dict) else {}


def withheld(facts: Facts) -> str:
    """Return how many answers said that a page is to be paid for, or withheld by law."""
    numbers = {
        rule: facts.dropped("crawl").get(rule, 0) + facts.dropped("extract").get(rule, 0) for rule in REFUSALS.values()
    }
    return f"{numbers[REFUSALS[402]]:,} URLs withheld until paid for (402), {numbers[REFUSALS[451]]:,} by law (451)"


def _opt_outs(facts: Facts) -> list[str]:
    policy = opt_out_policy(facts)
    agents = policy.pop("agents", [])
    lines = ["## Reservations of rights (opt-outs)", ""]
    lines += [
        f"robots.txt kept {facts.dropped('crawl').get('robots', 0):,} URLs from being fetched. "
        f"Of the pages that were fetched, {facts.dropped('extract').get('opt_out', 0):,} were dropped since they "
        f"reserve their use, and {facts.edits.marked.get('extract', {}).get('opt_out', 0):,} were marked. "
        f"{facts.taken_down:,} documents were left out because of a takedown. Answers: {withheld(facts)}.",
        "",
    ]
    if policy:
        lines += ["What each signal does:", "", *table(["signal", "a page with it"], sorted(policy.items()))]
    if agents:
        lines += [
            "Signals count that address everyone, the crawler by its own name, or one of: "
            + ", ".join(cell(name) for name in agents)
            + ".",
            "",
        ]
    if facts.edits.opt_outs:
        lines += table(["signals of the dropped pages", "pages"], facts.edits.opt_outs.items(), right=1)
    if facts.sources.opt_outs:
        lines += ["Signals that pages of the training text carry and that the policy lets stand:", ""]
        rows = share_rows(facts.sources.opt_outs, facts.sources.total)
        lines += table(["signals", *SHARE_HEADERS], rows, right=1)
    else:
        lines += ["No page of the training text carries any such signal.", ""]
    return lines


def filter_rules(facts: Facts) -> dict[str, dict[str, Any]]:
    """Return the filters as they were set: name → settings."""
    rules = facts.manifests["filter"].params.get("rules")
    found: dict[str, dict[str, Any]] = {}
    for rule in rules if isinstance(rules, list) else []:
        if isinstance(rule, dict):
            found.update({str(name): settings if isinstance(settings, dict) else {} for name, settings in rule.items()})
    return found


def _personal_data(facts: Facts) -> list[str]:
    rules = filter_rules(facts)
    lines = ["## Personal data and secrets", ""]
    for rule, what in (("pii", "personal data"), ("secrets", "passwords, keys and tokens")):
        if rule not in rules:
            lines += [f"No filter looked for {what}.", ""]
            continue
        looked = ", ".join(map(str, rules[rule].get("kinds", []))) or "every kind that the filter knows"
        changed = facts.edits.changed.get("filter", {}).get(rule, 0)
        lines += [
            f"The filter `{rule}` looked for {what} ({looked}; action: {rules[rule].get('action', 'mask')}). It "
            f"changed {changed:,} documents and found, by kind: {counted(facts.edits.masked[rule])}.",
            "",
        ]
    return [
        *lines,
        "The filters know patterns, not people: names, and what is written in words, are left as they were.",
        "",
    ]


def _measured_on(facts: Facts) -> list[str]:
    protected = facts.protected
    lines = ["## What the model is measured on", ""]
    lines += [
        f"{facts.dropped('holdout').get('held_out', 0):,} documents were held out. Of these tasks and files "
        f"{protected.get('protected_texts', 0):,} texts are looked for. Documents that hold one lost the passage "
        f"({facts.edits.changed.get('decontaminate', {}).get('benchmark_overlap', 0):,}) or were dropped "
        f"({facts.dropped('decontaminate').get('benchmark_overlap', 0):,}).",
        "",
    ]
    rows: list[tuple[object, ...]] = []
    for kind, named in (
        ("task that the gate scores", dict.fromkeys(protected.get("tasks", []), "")),
        ("file", protected.get("benchmarks", {})),
    ):
        for name, sha in sorted(named.items()):
            items = facts.protection.get(name, {})
            counts = [items.get(key, "–") for key in ("items", "by_ngrams", "whole", "not_protected")]
            rows.append((f"`{name}`", kind, *counts, f"`{sha}`" if sha else ""))
    # Tasks that lm-eval groups are counted by their parts.
    for name in sorted(set(facts.protection) - {*protected.get("tasks", []), *protected.get("benchmarks", {})}):
        items = facts.protection[name]
        rows.append(
            (
                f"`{name}`",
                "part of a task",
                *(items[key] for key in ("items", "by_ngrams", "whole", "not_protected")),
                "",
            )
        )
    lines += table(
        ["name", "kind", "items", "protected by n-grams", "protected as a whole", "not protected", "SHA-256"], rows
    )
    return lines + _not_protected(facts)


def _not_protected(facts: Facts) -> list[str]:
    reasons = [
        (f"`{name}`", reason, number)
        for name, found in sorted(facts.protection.items())
        for reason, number in found["reasons"].items()
    ]
    if not reasons:
        return []
    lines = ["Items that nothing looks for, so that the model may have read them, by the reason:", ""]
    return lines + table(["name", "reason", "items"], reasons, right=2)


_MIXTURE = ("group", "remark", "asked share", "resulting share", "documents", "bytes", "passes")


def _mixture_rows(facts: Facts) -> list[tuple[object, ...]]:
    return [
        (
            group["name"],
            group.get("why", ""),
            _percent(group.get("asked_share")),
            _percent(group.get("resulting_share")),
            group["resulting_documents"],
            group["resulting_bytes"],
            group.get("epochs", ""),
        )
        for group in facts.mixture.get("groups", [])
    ]


def _percent(value: float | None) -> str:
    return "as it comes" if value is None else f"{100 * value:.1f} %"


def _snapshot(facts: Facts) -> list[str]:
    crawl = facts.manifests["crawl"]
    lines = ["## The snapshot", "", f"Source: `{facts.crawl['source']}`. Made from:", ""]
    made_from = [
        (entry.get("name", ""), f"`{entry['sha256']}`" if "sha256" in entry else "–") for entry in _inputs(facts)
    ]
    lines += table(["name", "SHA-256"], made_from)
    lines += table(
        ["file of data/crawl", "SHA-256", "bytes"],
        ((shard.name, f"`{shard.sha256}`", shard.bytes) for shard in crawl.shards),
        right=2,
    )
    return lines


def _inputs(facts: Facts) -> list[dict[str, str]]:
    return [entry for entry in facts.crawl.get("sources", []) if isinstance(entry, dict)]

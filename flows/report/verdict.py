"""The gate's verdict and who approved it, as a release or a gate's folder says it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOBODY = "none asked for: the gate's rules decided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the gate said.

    Attributes:
        verdict: "pass", "fail" or "too few items".
        approver: who approved the release, or `NOBODY`.
        rules: (rule, its verdict, what it found).
    """

    verdict: str
    approver: str
    rules: tuple[tuple[str, str, str], ...]


def read_verdict(report: Path) -> Verdict | None:
    """Return what the gate's report says (`gate.json` of a release, `report.json` of the gate), None without one."""
    try:
        content = json.loads(report.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or "verdict" not in content:
        return None
    rules = [rule for rule in content.get("rules", []) if isinstance(rule, Mapping)]
    return Verdict(
        verdict=str(content["verdict"]),
        approver=str(content.get("approved_by") or NOBODY),
        rules=tuple((_text(rule, "rule"), _text(rule, "verdict"), _text(rule, "detail")) for rule in rules),
    )


def _text(rule: Mapping[str, Any], key: str) -> str:
    return str(rule.get(key) or "")

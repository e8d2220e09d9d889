"""Mutated pages, headers, policy files and evidence records: what was said before the damage is still seen."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tasks.rights.evidence import (
    Evidence,
    OptOutPolicy,
    RobotsVerdict,
    Signal,
    find_licenses,
    header_signals,
    host_signals,
    html_signals,
    judge,
    read_evidence,
)
from tests.fuzz.harness import Wrong, checked
from tests.fuzz.mutate import ODD, mutate

PAGES = 500
HTML = (
    b'<!doctype html><html><head><!-- a comment --><script>var a = "<meta name=robots content=noai>";</script>'
    b'<meta name="robots" content="noindex, nosnippet"><meta http-equiv=tdm-reservation content=1>'
    b'<link rel="license" href="https://creativecommons.org/licenses/by/4.0/"><style>p{}</style></head><body><p>x</p>'
    b"<a rel=license href=/l>l</a></body></html>"
)
JSON = Evidence(
    url="http://a.example/", robots=RobotsVerdict(user_agent="x", allowed=True), signals=(Signal("meta", "noai"),)
).to_bytes()
RSL = b'<link rel=license type="application/rsl+xml" href=/l><script type=application/rsl+xml><rsl/></script><!--><p>'
TDM = b'[{"location": "/", "tdm-reservation": 1, "tdm-policy": "http://a.example/p"}, {"location": "/*.html$"}]'
AI_TXT = b"Disallow: *.txt\nUser-agent: *\nDisallow: *.txt\nAgent: a\n  Training: deny\nTraining-Deny: /x\n"
HEADER = (
    b"X-Robots-Tag\0googlebot: noindex, noai\1Link\0<http://a.example/l>; rel=license\1Content-Usage\0train-ai=n"
    b"\1Content-Signal\0search=yes, ai-train=no\1Link\0<http://a.example/t>; rel=license; type=application/rsl+xml"
)
PLANTED = '<meta name="robots" content="noai">'


def batch(rng: Random, folder: Path) -> int:
    """Read some pages, each with headers, a policy file and an evidence record."""
    for _ in range(PAGES):
        html = mutate(rng, rng.choice((HTML, HTML + RSL)), rng.randrange(1, 8))
        if rng.random() < 0.05:
            html += rng.choice((b"<meta ", b"<a ", b"<!--", b"<script>")) + rng.choice(ODD) * 500
        text = html.decode("utf-8", "replace")
        fields = mutate(rng, HEADER, rng.randrange(1, 5)).decode("latin-1").split("\1")
        headers = [(name, value) for name, _, value in (field.partition("\0") for field in fields)]
        stored, tdm = mutate(rng, JSON, rng.randrange(1, 4)), mutate(rng, TDM, rng.randrange(1, 4))
        with checked(html + stored + tdm):
            signals = list(html_signals(PLANTED + text))
            said = list(header_signals([("TDM-Reservation", "1"), *headers]))
            find_licenses(headers, text, "http://a.example/")
            judge(map(str, [*signals, *said]), OptOutPolicy())
            evidence = read_evidence(stored)
            list(host_signals(None, tdm, mutate(rng, AI_TXT, 2), "http://a.example/x"))
        if Signal("meta", "noai") not in signals:
            raise Wrong(f"what stands before the damage was not seen: {signals}", html)
        if not any(signal.name == "tdm-reservation" for signal in said):
            raise Wrong(f"a header beside damaged ones was not seen: {said}", repr(headers).encode())
        if evidence is not None and read_evidence(evidence.to_bytes()) != evidence:
            raise Wrong("evidence that was read is not what is written again", stored)
    return PAGES

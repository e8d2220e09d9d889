"""Mutated robots.txt files: there is always a decision, and a rule behind what was changed still holds."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tasks.rights.evidence import host_signals
from tasks.rights.robots import Robots
from tests.fuzz.harness import Wrong, checked
from tests.fuzz.mutate import ODD, mutate

FILES = 1000
GOOD = (
    b"User-agent: *\nDisallow: /private\nAllow: /private/open$\nCrawl-delay: 2\n\nUser-agent: GPTBot\nDisallow: /\n",
    b"Content-Signal: ai-train=no\nUser-agent GPTBot\nCrawl-delay: 2\nUser-agent: b, c\nDisallow /\nLicense: http://a.example/l\n",
    b"User-agent: *\nContent-Usage: /x\ttrain-ai=n\nContent-Usage: /x train-ai=y\nNoindex: /\nDisallowAITraining: /y\n",
    b"# rules\r\nuser-agent: a\r\nuser-agent: b\r\ndisallow: /*.php$\r\nallow: /x*y*z\r\n\r\nSitemap: http://a.example/s.xml\r\n",
    "User-agent: *\nDisallow: /käse\nContent-Usage: train-ai=n\nContent-Usage: /x train-ai=y\n".encode(),
    b"User-agent: *\nDisallow: /%7Ejoe\nDisallow: /a%2Fb\nAllow: /\n" + b"Disallow: /*a*a*a*a*a*b\n" * 20,
    "\ufeffUser-agent: *\nDisallow: /x".encode(),
    b"<!doctype html><title>Not found</title>",
)
PLANTED = b"\nUser-agent: fuzzbot\nDisallow: /planted\n"
URLS = ("http://a.example/", "http://a.example/private/open?q=" + "a" * 200, "http://[::1/x", "", "http://a.example/%")


def batch(rng: Random, folder: Path) -> int:
    """Read some files."""
    for _ in range(FILES):
        changed = mutate(rng, rng.choice(GOOD), rng.randrange(1, 8))
        if rng.random() < 0.05:
            changed += rng.choice((b"Disallow: ", b"User-agent: ", b"", b"Allow: /")) + rng.choice(ODD) * 500
        content = changed + PLANTED
        with checked(content):
            robots = Robots(content)
            decisions = [robots.decide("Headwater/0.1", url) for url in URLS]
            robots.closed_to(URLS[1])
            list(host_signals(robots, None, changed, URLS[1]))
            delay = robots.crawl_delay("Headwater")
            planted = robots.decide("fuzzbot", "http://a.example/planted/x")
        if any(not isinstance(decision.allowed, bool) for decision in decisions) or (delay is not None and delay < 0):
            raise Wrong(f"no decision, or a delay of {delay}", content)
        # In UTF-16, which its mark announces, the planted lines are other characters.
        if planted.allowed and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise Wrong("a group behind a damaged one does not hold", content)
    return FILES

"""The readers of outside input, each with a maker of mutated inputs and what must hold of them: `make fuzz`."""

from tests.fuzz import evidence, http, jsonl, robots, warc
from tests.fuzz.harness import Batch

READERS: dict[str, Batch] = {
    "warc": warc.batch,
    "http": http.batch,
    "robots": robots.batch,
    "evidence": evidence.batch,
    "jsonl": jsonl.batch,
}

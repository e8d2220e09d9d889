"""Odd archives of other projects, where they stand beside the repository: each is read to its last good record.

They are not part of the repository. What they taught stands in the other tests as records of our own.
"""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from tasks.crawl.warc_reader import Record, read_records
from tests.conftest import ROOT

FOLDER = Path(os.environ.get("HEADWATER_ODD_WARCS", ROOT.parent / "shared" / "data" / "odd_warcs"))
INDEX = json.loads((FOLDER / "INDEX.json").read_bytes()) if (FOLDER / "INDEX.json").exists() else []
# Where warcio sees other records than are there: it takes ids and types as they stand (a tab before a type), goes on
# after a length that is none, gives a record that is cut off, or ends at the first thing that it does not know.
OTHERWISE: dict[str, tuple[dict[str, int], int]] = {
    "cdxj-indexer__bad.arc": ({"resource": 1}, 3),
    "ipwb__broken.warc": ({"warcinfo": 1, "request": 2, "metadata": 1, "response": 2}, 0),
    "ipwb__redirect.warc": ({"warcinfo": 1}, 1),
    "jwat__invalid-warcfile-fields-empty.warc": ({}, 1),
    "jwat__invalid-warcfile-fields-invalidformat.warc": ({}, 1),
    "jwat__invalid-warcfile-fields-missing.warc": ({}, 1),
    "jwat__invalid-warcfile-lonely-continuation.warc": ({}, 1),
    "jwat__invalid-warcfile-lonely-monkeys.warc": ({}, 1),
    "jwat__invalid-warcfile-lonely-request-response-resource-conversion.warc": ({}, 4),
    "jwat__invalid-warcfile-lonely-revisit.warc": ({}, 1),
    "jwat__invalid-warcfile-lonely-warcinfo-metadata.warc": ({}, 2),
    "jwat__invalid-warcfile-record-then-garbage.warc": ({"response": 1}, 1),
    "jwat__test-utf8.warc": ({"warcinfo": 1}, 0),
    "jwat__valid-warcfile-fields-continuation.warc": ({"continuation": 1}, 0),
    "jwat__valid-warcfile-fields-metainfo.warc": ({"metadata": 1}, 0),
    "jwat__valid-warcfile-fields-warcinfo.warc": ({"warcinfo": 1}, 0),
    "jwat__valid-warcfile-upper-lower-case.warc": ({"warcinfo": 1, "response": 4}, 0),
    "stormcrawler__unparsable-date.warc.gz": ({"warcinfo": 1, "request": 1, "response": 1}, 0),
    "warcio__example-bad-non-chunked.warc.gz": ({"warcinfo": 2, "response": 1, "request": 2, "revisit": 1}, 0),
    "warcio__example-bad.warc.gz.bad": ({"warcinfo": 1, "response": 2, "request": 2, "revisit": 1}, 0),
    "warcio__example-space-in-url.arc": ({"warcinfo": 1}, 1),
    "warcio__example-wrong-chunks.warc.gz": ({"request": 1}, 2),
    "webarchive-commons__IAH-20080430204825-00000-blackbook-truncated.arc": (
        {"warcinfo": 1, "resource": 1, "response": 7},
        0,
    ),
    "webarchive-commons__link-extraction-test.warc": ({"warcinfo": 1, "response": 6}, 1),
}


@pytest.mark.skipif(not INDEX, reason=f"no odd archives in {FOLDER}")
@pytest.mark.parametrize("entry", INDEX, ids=lambda entry: entry["file"])
def test_an_odd_archive_is_read_to_its_last_good_record(entry: dict[str, object]) -> None:
    name = str(entry["file"])
    with (FOLDER / name).open("rb") as stream:
        found = list(read_records(stream))
    kinds = Counter(one.kind for one in found if isinstance(one, Record))
    damages = [one for one in found if not isinstance(one, Record) and not one.kept]
    expected, damaged = OTHERWISE.get(name, (entry["warcio_types"], 0))
    assert dict(kinds) == expected
    assert len(damages) == damaged, damages
    assert all(0 <= damage.offset < (FOLDER / name).stat().st_size for damage in damages)

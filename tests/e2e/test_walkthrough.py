"""Every command of the walkthrough, from the finished run to sixty pages of a site: as test_docs.py for all others."""

from __future__ import annotations

import pytest

from tests.e2e.test_docs import LONG, PAGES, follow
from tests.e2e.workspace import Workspace

pytestmark = pytest.mark.e2e


def test_every_command_of_the_walkthrough_works(reader: Workspace) -> None:
    assert LONG in PAGES
    follow(reader, LONG)

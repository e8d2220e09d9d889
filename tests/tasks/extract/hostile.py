"""Extraction functions that misbehave on marked pages, for the child process to run."""

import os
import signal
import time

from tasks.extract.warc_pages import Page
from tasks.extract.worker_messages import Extracted, Settings


def misbehave(page: Page, settings: Settings) -> Extracted:
    if b"HANG" in page.body:
        time.sleep(60)
    if b"EXIT" in page.body:
        os._exit(3)
    if b"SEGV" in page.body:
        os.kill(os.getpid(), signal.SIGSEGV)
    if b"EAT" in page.body:
        bytearray(8 << 30)
    if b"RAISE" in page.body:
        raise ValueError("bad page")
    return Extracted(text=page.body.decode())

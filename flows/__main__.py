"""`python -m flows STAGE`: the command of every stage in dvc.yaml. People call `headwater stage NAME`."""

from __future__ import annotations

import sys

from flows.cli.main import main

if __name__ == "__main__":
    main(["stage", *sys.argv[1:]])

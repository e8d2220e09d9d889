"""`python -m flows STAGE`: the command of every stage in dvc.yaml. People call `headwater stage NAME`.

In a run it has the run's warm process do it, and so loads nothing before it has asked.
"""

from __future__ import annotations

import sys

from flows.workspace.warm import call_and_exit

if __name__ == "__main__":
    arguments = ["stage", *sys.argv[1:]]
    call_and_exit("flows.cli.main:main", arguments)
    from flows.cli.main import main

    main(arguments)

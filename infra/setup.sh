#!/usr/bin/env bash
# Set-up of a workspace: a virtual environment from constraints.txt, and KenLM's lmplz built into it.
# Usage: infra/setup.sh [VENV]   (default .venv). Safe to call again; `make setup` calls it when it is due.
# EXTRAS names the optional parts of pyproject.toml, all by default: a node that crawls and filters does with `EXTRAS=`.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}

. infra/packages.sh

python=${PYTHON:-}
for candidate in python3 python3.13 python3.12 python3.11; do
    [ -n "$python" ] && break
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        python=$candidate
    fi
done
if [ -z "$python" ]; then
    found=$(python3 --version 2>/dev/null || true)
    say "setup: Python 3.11 or newer is needed, found ${found:-none}; install it, or name it: make setup PYTHON=/path/to/python3"
    exit 1
fi

# The kenlm package is compiled, which takes a compiler and Python's headers.
missing=()
command -v g++ >/dev/null || missing+=(g++)
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
"$python" -c 'import pathlib, sysconfig, sys; sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' \
    || missing+=(python3-dev)
[ ${#missing[@]} -eq 0 ] || need_packages "${missing[@]}"

if [ ! -x "$venv/bin/python" ]; then
    say "setup: making $venv with $("$python" --version)"
    "$python" -m venv "$venv"
fi
say "setup: installing the packages of constraints.txt (a few minutes the first time)"
# Of a part of it, constraints.txt gives only the versions.
[ -n "${EXTRAS+given}" ] && pins=--constraint || pins=--requirement
extras=${EXTRAS-train,serve,ui,dev}
"$venv/bin/python" -m pip install -qq --disable-pip-version-check \
    "$pins" constraints.txt --editable ".${extras:+[$extras]}"
bash infra/build_lmplz.sh "$venv"
say "setup: making the tables of Prefect's database, which each new workspace copies"
tables=$(mktemp -d)
PREFECT_HOME=$tables DO_NOT_TRACK=1 "$venv/bin/prefect" server database upgrade --yes >/dev/null
install -D -m 644 "$tables/prefect.db" "$venv/share/headwater/prefect.db"
rm -r "$tables"
touch "$venv/.setup-done"
say "setup: done; \`$venv/bin/headwater doctor\` says what this machine has"

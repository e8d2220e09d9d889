#!/usr/bin/env bash
# The browser of the tests of what a foreign web page can do (tests/e2e/test_foreign_page.py): Debian's Chromium.
# Usage: infra/chromium.sh. `make test` calls it; a second call finds it and does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
. infra/packages.sh

for program in chromium chromium-browser google-chrome; do
    if command -v "$program" >/dev/null; then exit 0; fi
done
need_packages chromium

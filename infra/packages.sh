# Sourced by the scripts beside it: system packages, where this user may install them.

say() { printf '%s\n' "$*" >&2; }

# Install Debian or Ubuntu packages, as root or by sudo; else one line that says what a person must do.
need_packages() {
    local sudo=()
    if [ "$(id -u)" -ne 0 ]; then
        if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo=(sudo -n); else
            say "please run this first, then again: sudo apt-get install -y $*"; exit 1
        fi
    fi
    if ! command -v apt-get >/dev/null; then say "please install what these Debian packages hold: $*"; exit 1; fi
    say "installing system packages: $*"
    "${sudo[@]}" apt-get update -qq >/dev/null
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

#!/usr/bin/env bash
# Builds KenLM's `lmplz` and `build_binary` from the source package of kenlm (its wheel holds neither) and puts
# them into a virtual environment's bin folder. The version is the one that constraints.txt pins.
#
#   infra/build_lmplz.sh [VENV]        VENV defaults to .venv; a second run finds both binaries and does nothing
set -euo pipefail

root="$(cd "$(dirname "$0")/.." && pwd)"
venv="${1:-$root/.venv}"
# Needed to compile: Debian's and Ubuntu's names.
packages=(
    build-essential cmake libboost-program-options-dev libboost-system-dev libboost-thread-dev libboost-test-dev
    libeigen3-dev zlib1g-dev libbz2-dev liblzma-dev
)

fail() {
    echo "infra/build_lmplz.sh: $*" >&2
    exit 1
}

version="$(sed -n 's/^kenlm==\([^ ;]*\).*/\1/p' "$root/constraints.txt")"
[ -n "$version" ] || fail "constraints.txt pins no kenlm (expected a line such as kenlm==0.3.0)"
[ -x "$venv/bin/python" ] || fail "$venv holds no Python; run \`make setup\`, or name the virtual environment"

stamp="$venv/bin/.lmplz-version"
if [ -x "$venv/bin/lmplz" ] && [ -x "$venv/bin/build_binary" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$version" ]; then
    exit 0
fi

# Not every machine has dpkg, and not every one that has it took these libraries from it: ask for what is missing,
# install it where we may, and otherwise let cmake decide.
missing=()
if command -v dpkg-query >/dev/null; then
    for package in "${packages[@]}"; do
        state="$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)"
        [ "$state" = installed ] || missing+=("$package")
    done
    # g++ and make may be there without the package that bundles them.
    if command -v g++ >/dev/null && command -v make >/dev/null; then
        missing=("${missing[@]/#build-essential/}")
    fi
    missing=($(printf '%s\n' "${missing[@]}" | sed '/^$/d'))
else
    for tool in cmake make g++; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    [ "${#missing[@]}" -eq 0 ] || fail "install ${missing[*]} and the headers of Boost, Eigen 3, zlib, bzip2 and xz"
fi

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
log="$work/log"

quietly() { # what it does, then the command; its output is shown only when it fails
    local what="$1"
    shift
    if ! "$@" >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        fail "$what failed (the end of its output is above)"
    fi
}

if [ "${#missing[@]}" -gt 0 ]; then
    if [ "$(id -u)" -eq 0 ]; then
        as_root=(env)
    elif sudo -n true 2>/dev/null; then
        as_root=(sudo -n env)
    else
        fail "needs packages: sudo apt-get install ${missing[*]}"
    fi
    apt=("${as_root[@]}" DEBIAN_FRONTEND=noninteractive apt-get -qq)
    if ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        fail "could not install packages; install them, then run this again: apt-get install ${missing[*]}"
    fi
fi

# pip asks a source package for its metadata before it saves it. Doing that in the environment, which has setuptools,
# avoids an isolated one, for which `--no-binary :all:` would build cmake and others from source as well.
isolation=()
if "$venv/bin/python" -c 'import setuptools' 2>/dev/null; then
    isolation=(--no-build-isolation)
fi
quietly "downloading the source package of kenlm $version" "$venv/bin/python" -m pip download --no-deps \
    --no-binary kenlm "${isolation[@]}" --disable-pip-version-check --dest "$work" "kenlm==$version"
quietly "unpacking kenlm" tar -xzf "$work/kenlm-$version.tar.gz" -C "$work"

quietly "configuring kenlm" cmake -S "$work/kenlm-$version" -B "$work/build" \
    -DCMAKE_BUILD_TYPE=Release -DENABLE_PYTHON=OFF -DCMAKE_POLICY_VERSION_MINIMUM=3.5
quietly "compiling lmplz" cmake --build "$work/build" --target lmplz build_binary -j 2

for binary in lmplz build_binary; do
    install -m 755 "$work/build/bin/$binary" "$venv/bin/.$binary.new"
    mv -f "$venv/bin/.$binary.new" "$venv/bin/$binary"
done
echo "$version" >"$stamp"

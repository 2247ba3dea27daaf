#!/usr/bin/env bash
# Make sure that programs from the system's packages are there: scripts/system_packages.sh espeak-ng redis-server …
# Root, or somebody with a password-free sudo, gets what is missing from apt. Anybody else, and a system without apt, gets
# one line that names what is missing and the command to run; the exit code is then 1.
set -euo pipefail

# Is the program of a Debian package here? pythonX.Y-venv has no program: it is what `python -m venv` needs.
present() {
  case $1 in
    python*-venv) "${1%-venv}" -c 'import ensurepip' 2>/dev/null ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

missing=()
for package in "$@"; do
  present "$package" || missing+=("$package")
done
((${#missing[@]})) || exit 0

root=()
if ((${EUID:-$(id -u)} != 0)); then root=(sudo -n); fi

apt() {
  ${root[@]+"${root[@]}"} env DEBIAN_FRONTEND=noninteractive apt-get -y -qq -o DPkg::Lock::Timeout=120 "$@" </dev/null >&2
}

if command -v apt-get >/dev/null && { ((${#root[@]} == 0)) || sudo -n true 2>/dev/null; }; then
  printf 'Installing system packages: %s\n' "${missing[*]}"
  # The package lists of a fresh machine are absent, those of an old one are stale: then the first try fails.
  apt install --no-install-recommends "${missing[@]}" 2>/dev/null ||
    { apt update && apt install --no-install-recommends "${missing[@]}"; } || true
fi

still=()
for package in "${missing[@]}"; do
  present "$package" || still+=("$package")
done
((${#still[@]})) || exit 0

if command -v apt-get >/dev/null; then
  advice="run: sudo apt-get update && sudo apt-get install -y ${still[*]}"
else
  advice="install with this system's package manager what Debian calls: ${still[*]}"
fi
printf 'Missing: %s; %s\n' "${still[*]}" "$advice" >&2
exit 1

#!/usr/bin/env bash
# Everything between a fresh clone and a running program. Running it again costs a blink when nothing has changed.
#   scripts/setup.sh run | demo | test   all that the make target of that name needs
#   scripts/setup.sh packages            the runtime's Python packages and the models, nothing of the system (Dockerfile)
#   scripts/setup.sh project             the project itself, into .venv
#   scripts/setup.sh models              the model files of the built-in engines
# PYTHON=… chooses the interpreter that .venv is made with. Nothing outside this folder is written but system packages.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# With the --quiet of each command: errors only. A warning of pip is no news for who only wants to start this.
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore PIP_QUIET=1
python=.venv/bin/python

say() { printf '%s\n' "$*"; }
fail() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

# The lock (below) is not for the daemons that a package may start.
system_packages() { scripts/system_packages.sh "$@" 9<&-; }

find_python() {
  local name
  for name in ${PYTHON:-python3.11 python3 python3.12 python3.13}; do
    if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      say "$name"
      return
    fi
  done
  fail "Missing: Python 3.11 or newer (${PYTHON:-python3} is $("${PYTHON:-python3}" --version 2>&1 | head -n 1));" \
    "run: sudo apt-get install -y python3.11 python3.11-venv"
}

ensure_venv() {
  # Scripts in .venv carry its path: one that was copied or moved is of no use.
  if [[ "$(cat .venv/.made-in 2>/dev/null || say "$PWD")" == "$PWD" ]] && "$python" -c 'import pip' 2>/dev/null; then
    return
  fi
  local base
  base=$(find_python)
  if ! "$base" -c 'import ensurepip' 2>/dev/null; then
    system_packages "$("$base" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
  fi
  "$base" -m venv --clear .venv
  say "$PWD" >.venv/.made-in
}

# What an installation depends on, in one word.
key() {
  "$python" - "$PWD" "$@" <<'PY'
import hashlib, pathlib, sys
whole = hashlib.sha256(f"{sys.version} {sys.argv[1]}".encode())
for name in sys.argv[2:]:
    whole.update(pathlib.Path(name).read_bytes())
print(whole.hexdigest())
PY
}

# done_already NAME KEY, mark NAME KEY: was NAME installed from just these files?
done_already() { [[ "$(cat ".venv/.installed-$1" 2>/dev/null)" == "$2" ]]; }
mark() { say "$2" >".venv/.installed-$1"; }

# runtime or dev. The dev set contains the runtime set at the same versions (tests/test_packaging.py).
install_packages() {
  ensure_venv
  local wanted runtime
  wanted=$(key "requirements/$1.txt")
  runtime=$(key requirements/runtime.txt)
  done_already "$1" "$wanted" && done_already runtime "$runtime" && return
  say "Installing $(grep -c == "requirements/$1.txt") Python packages into .venv (only when they change; about a minute) …"
  "$python" -m pip install --quiet --require-hashes -r "requirements/$1.txt" ||
    fail "the Python packages could not be installed (pip's reason is above); is a package index within reach?"
  mark "$1" "$wanted"
  mark runtime "$runtime"
}

install_project() {
  local wanted
  wanted=$(key pyproject.toml requirements/runtime.in)
  done_already project "$wanted" && [[ -x .venv/bin/voice-gateway ]] && return
  "$python" -m pip install --quiet --no-deps --no-build-isolation -e . || fail "voice-gateway could not be installed"
  mark project "$wanted"
}

fetch_models() {
  ensure_venv
  [[ -f "${VOICE_MODELS_DIR:-models}/LICENSES.txt" ]] || say "Fetching the models of the built-in engines …"
  "$python" scripts/fetch_models.py >/dev/null || fail "the models could not be fetched"
}

# With a vendor key somebody else may do the speaking, and LOCAL_FALLBACK is off.
has_vendor_key() {
  local names='(DEEPGRAM|ELEVENLABS|CARTESIA|GLADIA|OPENAI|MISTRAL)_API_KEY|AWS_SECRET_ACCESS_KEY'
  { env; cat "${VOICE_GATEWAY_ENV_FILE:-.env}" 2>/dev/null; } | grep -Eq "^[[:space:]]*(export )?($names)=[\"']?[^\"'[:space:]]"
}

everything() {
  install_packages "$1"
  install_project
  fetch_models
}

# Two set-ups at once would undo each other's work.
if command -v flock >/dev/null; then
  exec 9<scripts/setup.sh
  flock 9
fi

case ${1:-} in
  run)
    everything runtime
    system_packages espeak-ng || has_vendor_key
    ;;
  demo)
    everything runtime
    system_packages espeak-ng
    ;;
  test)
    everything dev
    system_packages espeak-ng
    system_packages chromium
    system_packages redis-server || say "Going on without redis-server."
    ;;
  packages)
    install_packages runtime
    fetch_models
    ;;
  project) install_project ;;
  models) fetch_models ;;
  *) fail "usage: scripts/setup.sh run | demo | test | packages | project | models" ;;
esac

# shellcheck shell=bash
# What the scripts share. They are thin: a step at a time, timed, in order.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=$root/target/devloop/bin
export PATH="$bin:$PATH"
# Progress is for people: cargo's bar would fill a log.
export CARGO_TERM_PROGRESS_WHEN=${CARGO_TERM_PROGRESS_WHEN:-auto}

timings=()

now_ms() { date +%s%3N; }

# step NAME COMMAND...: runs the command, says what it is and how long it took.
step() {
    local name=$1 started took
    shift
    started=$(now_ms)
    printf '\n==> %s\n' "$name" >&2
    if ! "$@"; then
        printf '==> %s: failed after %s s\n' "$name" "$((($(now_ms) - started) / 1000))" >&2
        return 1
    fi
    took=$(($(now_ms) - started))
    timings+=("$(printf '%8d.%01d s  %s' "$((took / 1000))" "$((took % 1000 / 100))" "$name")")
}

print_timings() {
    printf '\nWhere the time went:\n' >&2
    printf '%s\n' "${timings[@]}" >&2
}

# die MESSAGE HINT: an error as the programs print theirs.
die() {
    printf 'Error: %s\nHint: %s\n' "$1" "$2" >&2
    exit 1
}

# install_programs PROGRAM:PACKAGE...: installs the Debian packages of programs
# that are missing. A program that is there, from whatever source, is left alone.
install_programs() {
    local pair missing=()
    for pair in "$@"; do
        [ -e "${pair%%:*}" ] || command -v "${pair%%:*}" >/dev/null 2>&1 || missing+=("${pair##*:}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
    command -v apt-get >/dev/null || die "missing programs: ${missing[*]}" "install them with this system's package manager"
    [ "$(id -u)" = 0 ] || die "missing packages: ${missing[*]}" "run \`sudo apt-get install ${missing[*]}\`"
    printf 'Installing %s\n' "${missing[*]}" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

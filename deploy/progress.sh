#!/bin/sh
# Runs a command that takes its time, and shows that it goes on: in one line on a terminal, else a line now and then.
# What it says is shown only when it fails, and its exit status is kept.
#
#   progress.sh TITLE COMMAND...
set -eu

title=$1
shift
log=$(mktemp)
trap 'rm -f "$log"' EXIT

"$@" >"$log" 2>&1 &
pid=$!
trap 'kill "$pid" 2>/dev/null || true; exit 130' INT TERM

seconds=0
while kill -0 "$pid" 2>/dev/null; do
    last=$(tail -c 4096 "$log" | tr '\r' '\n' | grep . | tail -n 1 | cut -c 1-70)
    if [ -t 2 ]; then
        printf '\r\033[K%s (%s s): %s' "$title" "$seconds" "$last" >&2
    elif [ $((seconds % 15)) -eq 14 ]; then
        printf '%s (%s s): %s\n' "$title" "$seconds" "$last" >&2
    fi
    sleep 1
    seconds=$((seconds + 1))
done
if [ -t 2 ]; then
    printf '\r\033[K' >&2
fi

wait "$pid" && exit 0
status=$?
tail -n 40 "$log" >&2
echo "$title: failed with status $status" >&2
exit "$status"

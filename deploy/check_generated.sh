#!/bin/sh
# Fails, showing the difference, when the committed generated code is not what the contract gives.
#
#   check_generated.sh VENV
set -eu

output=$(mktemp -d)
trap 'rm -rf "$output"' EXIT
"$(dirname "$0")/generate.sh" "$1" "$output"
for file in "$output"/mulligan/v1/*; do
    diff -u "proto/mulligan/v1/$(basename "$file")" "$file" || {
        echo "the generated code is not up to date; run: make proto" >&2
        exit 1
    }
done

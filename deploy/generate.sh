#!/bin/sh
# Generates the Python code of the contract.
#
#   generate.sh VENV OUTPUT     OUTPUT is `proto` to renew the committed code, another directory to compare with it
set -eu

venv=$1 output=$2
PATH="$venv/bin:$PATH"
export PATH

# shellcheck disable=SC2046 # the files' names hold no spaces
python -m grpc_tools.protoc -I proto \
    --python_out="$output" --grpc_python_out="$output" --mypy_out="quiet:$output" --mypy_grpc_out="quiet:$output" \
    $(find proto -name '*.proto' | LC_ALL=C sort)

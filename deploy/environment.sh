#!/bin/sh
# Makes the virtual environment, with this checkout installed in it, editable.
#
#   environment.sh PYTHON DIRECTORY EXTRAS     e.g. environment.sh python3 .venv dev,libvirt
set -eu

python=$1 venv=$2 extras=$3

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Mulligan needs Python 3.11 or newer; $python is $("$python" --version 2>&1). Set PYTHON=/path/to/python3.11" >&2
    exit 1
}
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"

echo "Installing Mulligan [$extras] into $venv (the first time takes a minute or two)"
"$(dirname "$0")/progress.sh" "Installing Python packages" \
    "$venv/bin/python" -m pip install --progress-bar off --editable ".[$extras]"

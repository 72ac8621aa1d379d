#!/usr/bin/env bash
# Run the README's test command as it is printed, ruff and train.py with --dataset sample, on a machine that has only
# Python. All happens in a copy of this folder, which is removed at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/copy"
tar --exclude ./.venv --exclude ./save --exclude ./log -c . | tar -x -C "$folder/copy"
if [ -d ../shared ]; then ln -s "$(realpath ../shared)" "$folder/shared"; fi  # where tests/reference.py looks
cd "$folder/copy"
test_command=$(grep -m 1 'python -m pytest' README.md)
echo "+ $test_command"
bash -euc "$test_command"
.venv/bin/ruff check .
.venv/bin/python train.py --dataset sample --submit --analysis

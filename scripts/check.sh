#!/usr/bin/env bash
# Run the README's test command, ruff and train.py with --dataset sample on a machine that has only Python. The virtual
# environment and the files of the run are in a temporary folder, which is removed at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
test_command=$(grep -m 1 'python -m pytest' README.md)
test_command=${test_command//.venv/$folder/venv}
echo "+ $test_command"
bash -euc "$test_command"
"$folder/venv/bin/ruff" check .
"$folder/venv/bin/python" train.py --dataset sample --submit --analysis \
    --log_dir "$folder/log" --save_dir "$folder/save" --submission_dir "$folder/submission"

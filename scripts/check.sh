#!/usr/bin/env bash
# What a newcomer does, where only Python is installed: the README's test command, lint, the embedded default. The
# virtual environment and what the run writes are in a temporary folder, which goes at the end.
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

#!/usr/bin/env bash
# Run the suite at both ends of the range of versions: with requirements.txt and, on Python 3.11, for which torch 2.0.1
# has its last wheels, with requirements-old-gpus.txt. Names the versions that were tried.
#
#     bash scripts/check_versions.sh python3.11 python3.12 python3.13      # interpreters; without any: python3
#
# Each virtual environment has several GB; it is in a temporary folder, and removed after its tests.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
[ $# -gt 0 ] || set -- python3
status=0
for python; do
    for file in requirements.txt requirements-old-gpus.txt; do
        if [ "$file" = requirements-old-gpus.txt ] && ! "$python" -c 'import sys; sys.exit(sys.version_info >= (3, 12))'
        then continue
        fi
        "$python" -m venv --clear "$folder/venv"
        "$folder/venv/bin/pip" install -q -r "$file" -r requirements-dev.txt
        echo "+ $("$folder/venv/bin/python" -V), $file: $("$folder/venv/bin/pip" freeze |
            grep -iE '^(torch|numpy|spacy|scikit.learn|scipy|pandas|ftfy|pyarrow|safetensors|transformers)==' | xargs)"
        "$folder/venv/bin/python" -m pytest -q -n 2 || status=1
    done
done
exit $status

#!/usr/bin/env bash
# Style, types and tests, in the environment that run_all.sh uses. Arguments go to pytest.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source workflow/environment.sh
use_environment dev
use_pilot_weights

status=0
python -m ruff check . || status=1
python -m ruff format --check . || status=1
python -m mypy clipit_lib companion || status=1
# One file, one worker: what its tests share is then made once.
python -m pytest -n 2 --dist loadfile "$@" || status=1
exit "$status"

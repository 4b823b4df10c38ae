#!/usr/bin/env bash
# Style, types and tests, in the environment that run_all.sh uses. `core`, `companion` or `tools` as
# the first argument tests that part alone, `all` adds the tests that take longer: every notebook and
# all of run_all.sh among them. Other arguments go to pytest.
set -uo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
source workflow/environment.sh
use_environment dev
use_extra pilot "the pretrained weights of the pilot profile"
use_extra provenance "what reads the descriptions of the results"

case ${1:-} in
    core | companion | tools) set -- "tests/$1" "${@:2}" ;;
    all) set -- -m 'not browser and not alone' "${@:2}" ;;
esac

status=0
python -m ruff check . || status=1
python -m ruff format --check . || status=1
python -m mypy clipit_lib companion || status=1
# One file, one worker: what its tests share is then made once.
python -m pytest -n 2 --dist loadfile "$@" || status=1
exit "$status"

#!/usr/bin/env bash
# One notebook of the workflow: its output goes to a log, one line about it to the terminal.
# usage: job.sh NOTEBOOK OUTPUT LOG -p KEY VALUE ...
set -euo pipefail
trap '' PIPE # a closed terminal is no reason to fail

notebook=$1 output=$2 log=$3
shift 3
name=$(basename "$notebook" .ipynb)
about="$name$(printf ' %s' "$@" | sed 's/-p \([^ ]*\) /\1=/g')"

# Of several GPUs take the first that no other job holds; the lock ends with this job.
for gpu in ${CLIPIT_GPUS:-}; do
    exec 8> "$(dirname "$output")/../../.gpu$gpu.lock"
    if flock --nonblock 8; then
        export CUDA_VISIBLE_DEVICES=$gpu
        break
    fi
done

if python -m clipit_lib notebook "$name" --output "$output" "$@" > "$log" 2>&1; then
    printf 'done    %s (%d s)\n' "$about" "$SECONDS" || true
else
    failure="$about: $(tail -n 1 "$log") (log: $log)"
    echo "FAILED  $failure" | tee -a "$(dirname "$log")/failures.txt"
    exit 1
fi

#!/usr/bin/env bash
# One job of the workflow: its output goes to a log, one line about it to the terminal.
# usage: job.sh notebook|train NAME OUTPUT LOG -p KEY VALUE ...
set -euo pipefail
trap '' PIPE # a closed terminal is no reason to fail

kind=$1 name=$2 output=$3 log=$4
shift 4
about="$name$(printf ' %s' "$@" | sed 's/-p \([^ ]*\) /\1=/g')"

# Of several GPUs take the first that no other job holds; the lock ends with this job.
for gpu in ${CLIPIT_GPUS:-}; do
    exec 8> "$(dirname "$output")/../../.gpu$gpu.lock"
    if flock --nonblock 8; then
        export CUDA_VISIBLE_DEVICES=$gpu
        break
    fi
done

if python -m clipit_lib "$kind" "$name" --output "$output" "$@" > "$log" 2>&1; then
    printf 'done    %s (%d s)\n' "$about" "$SECONDS" || true
else
    failure="$about: $(tail -n 1 "$log") (log: $log)"
    echo "FAILED  $failure" | tee -a "$(dirname "$log")/failures.txt"
    exit 1
fi

#!/usr/bin/env bash
# One job of the workflow: its output goes to a log, one line about it to the terminal.
# usage: [CLIPIT_JOB_GPUS=N] job.sh notebook|train NAME OUTPUT LOG -p KEY VALUE ...
set -euo pipefail
trap '' PIPE # a closed terminal is no reason to fail
trap 'stopped=yes' TERM # of a time limit, say: there is a line to write

kind=$1 name=$2 output=$3 log=$4
shift 4
about="$name$(printf ' %s' "$@" | sed 's/-p \([^ ]*\) /\1=/g')"
failed=${log%.log}.failed stopped=''
wanted=${CLIPIT_JOB_GPUS:-1}

# Of this machine's GPUs take the first that no other job holds; the locks end with this job. On a
# cluster the list is empty: the scheduler has chosen.
taken=()
for gpu in ${CLIPIT_GPUS:-}; do
    ((${#taken[@]} < wanted)) || break
    exec {lock}> "$(dirname "$output")/../../.gpu$gpu.lock"
    if flock --nonblock "$lock"; then
        taken+=("$gpu")
        CUDA_VISIBLE_DEVICES=$(IFS=, && echo "${taken[*]}")
        export CUDA_VISIBLE_DEVICES
    fi
done

run=(python)
if [[ $kind == train ]] && ((wanted > 1)); then
    share=$((${OMP_NUM_THREADS:-1} / wanted))
    run+=(-m accelerate.commands.launch --multi_gpu --num_machines 1 --num_processes "$wanted"
        --num_cpu_threads_per_process $((share > 0 ? share : 1)) --main_process_port 0
        --mixed_precision no --dynamo_backend no)
fi
status=0
"${run[@]}" -m companion "$kind" "$name" --output "$output" "$@" > "$log" 2>&1 || status=$?
if ((status == 0)); then
    rm -f "$failed" # of an earlier attempt
    # What Snakemake has said so far, without this job.
    count=$(awk '/^total /{steps = $2} /^[0-9]+ of [0-9]+ steps/{before++}
        END{if (steps) print "; " before + 1 " of " steps}' "${log%/*}/snakemake.log" 2> /dev/null) || true
    printf 'done    %s (%d s%s)\n' "$about" "$SECONDS" "$count" || true
else
    # What launches several processes has words of its own after theirs.
    reason=$(grep '^error: ' "$log" | tail -n 1) || reason=$(tail -n 1 "$log")
    [[ -z $stopped ]] && ((status < 128)) || reason="stopped by the system, perhaps at a limit"
    echo "$about: $reason (log: $log)" > "$failed"
    echo "FAILED  $(< "$failed")" || true
    exit 1
fi

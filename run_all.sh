#!/usr/bin/env bash
# Every figure and table of one profile, from a fresh machine. See --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source workflow/environment.sh

usage() {
    cat << 'TEXT'
usage: ./run_all.sh [--profile NAME] [--jobs N] [--dry-run] [SNAKEMAKE OPTION ...]

Runs the notebooks of a profile, in order of need, and makes its tables and figures.
What is finished is kept: an interrupted run goes on where it stopped.

  --profile NAME  smoke, demo (default), phantom, pilot or paper; see profiles/
  --jobs N        notebooks at the same time; default: one a GPU, else one a core, at most 4
  --dry-run       only say what would run
  --help          this text

Results go to results/NAME and figures/NAME in this folder, or in $CLIPIT_OUTPUT if it is set.
Anything else is passed on to Snakemake, for example --executor slurm.
TEXT
}

profile=demo jobs='' dry_run='' rest=()
while (($#)); do
    case $1 in
        --profile | --jobs)
            (($# > 1)) || fail "$1 needs a value. See ./run_all.sh --help"
            declare "${1#--}=$2"
            shift
            ;;
        --profile=* | --jobs=*) option=${1%%=*} && declare "${option#--}=${1#*=}" ;;
        --dry-run | -n) dry_run=yes ;;
        --help | -h) usage && exit ;;
        *) rest+=("$1") ;;
    esac
    shift
done
[[ $jobs =~ ^([1-9][0-9]*)?$ ]] || fail "--jobs is '$jobs'. Give a whole number above 0"

use_environment
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
folders=$(python workflow/folders.py "$profile") || exit 1
results=${folders%%$'\n'*} figures=${folders#*$'\n'}
[[ $profile != pilot ]] || use_pilot_weights

gpus=$(nvidia-smi --query-gpu=index --format=csv,noheader 2> /dev/null | xargs || true)
gpus=${CUDA_VISIBLE_DEVICES-$gpus} && gpus=${gpus//,/ }
cores=$(nproc 2> /dev/null || getconf _NPROCESSORS_ONLN)
[[ -n $jobs ]] || jobs=$(wc -w <<< "$gpus")
((jobs > 0)) || jobs=$((cores < 4 ? cores : 4))
# More threads than cores make parallel notebooks many times slower.
threads=$((cores > jobs ? cores / jobs : 1))

snakemake() {
    python -m snakemake --snakefile workflow/Snakefile --directory "$results" --nolock \
        --config profile="$profile" threads="$threads" --cores $((jobs * threads)) --jobs "$jobs" \
        --scheduler greedy --keep-going --rerun-incomplete "$@" ${rest[@]+"${rest[@]}"}
}

if [[ -n $dry_run ]]; then
    python -m clipit_lib plan --profile "$profile"
    snakemake --dry-run --quiet rules host reason 2>&1 | sed -n '1,/^total/p'
    exit
fi

logs=$results/notebooks/logs
mkdir -p "$logs" || fail "cannot write $results. Set CLIPIT_OUTPUT to a folder of yours"
# This lock, not Snakemake's own, which outlives a killed run.
exec 9> "$results/.run.lock"
take_lock python 9 || fail "profile $profile is already running in $results. Wait for it or stop it"
rm -f "$logs/failures.txt" "$results"/notebooks/.*.ipynb # what a killed run left

# Jobs say here how they went, unless they run on other machines: then Snakemake tells.
chatter=$logs/snakemake.log
case " ${rest[*]-} " in
    *' --executor'*) chatter=/dev/stderr ;;
    *) export CLIPIT_GPUS=$gpus ;;
esac
echo "Running profile $profile: notebooks at a time: $jobs, threads each: $threads."
status=0
snakemake 2> "$chatter" || status=$?
if ((status)); then
    if [[ -s $logs/failures.txt ]]; then
        echo "error: not finished. What failed, and its log:" && cat "$logs/failures.txt"
    elif [[ -f $chatter ]]; then
        echo "error: the workflow stopped. The end of $chatter:" && tail -n 4 "$chatter"
    fi >&2
    exit "$status"
fi
cat << TEXT
Finished profile $profile in $SECONDS s.
  all on one page     $results/report.html
  tables              $results/tables
  figures             $figures
  executed notebooks  $results/notebooks
TEXT

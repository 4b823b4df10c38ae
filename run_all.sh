#!/usr/bin/env bash
# Every figure and table of one profile, from a fresh machine. See --help.
set -euo pipefail
called_in=$PWD
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
source workflow/environment.sh

usage() {
    cat << 'TEXT'
usage: ./run_all.sh [--profile NAME] [--jobs N] [--gpus N] [--threads N] [--cluster NAME]
                    [--from-predictions | --site] [--rehearse] [--dry-run] [SNAKEMAKE OPTION ...]

Runs the notebooks of a profile, in order of need, and makes its tables and figures.
What is finished is kept: an interrupted run goes on where it stopped.

  --profile NAME  demo (default), another of the folder profiles/, or a YAML file of yours
  --jobs N        notebooks at the same time; default: one per GPU, else one per core, at most 4
  --gpus N        GPUs per training job, which then runs in N processes; default: 1 (0: none is used)
  --threads N     threads per job; default: all cores, shared among the jobs; on a cluster 8 per GPU;
                  always 1 where the CPU's kernels are held, see docs/reproducibility.md
  --cluster NAME  submit jobs as workflow/profiles/NAME says (slurm), or a folder of your own
  --from-predictions
                  make tables and figures from the predictions that came with this folder; train nothing
  --site          make a site of the notebooks as they were run, the documentation and the library;
                  it shows the patches and reports that the notebooks show
  --rehearse      run the whole profile on miniature data, with models of few blocks and random
                  weights, as PROFILE-rehearsal: that everything works, within minutes; no result
  --dry-run       only say what would run
  --help          this text

Results go to results/NAME and figures/NAME in this folder, or in $CLIPIT_OUTPUT if it is set.
Anything else is passed on to Snakemake.
TEXT
}

profile=demo jobs='' gpus=1 threads='' cluster='' rest=()
rehearse='' dry_run='' from_predictions='' site=''
while (($#)); do
    case $1 in
        --profile | --jobs | --gpus | --threads | --cluster)
            (($# > 1)) || fail "$1 needs a value. See ./run_all.sh --help"
            declare "${1#--}=$2"
            shift
            ;;
        --profile=* | --jobs=* | --gpus=* | --threads=* | --cluster=*)
            option=${1%%=*} && declare "${option#--}=${1#*=}"
            ;;
        --rehearse) rehearse=-rehearsal ;;
        --dry-run | -n) dry_run=yes ;;
        --from-predictions) from_predictions=yes ;;
        --site) site=yes ;;
        --help | -h) usage && exit ;;
        *) rest+=("$1") ;;
    esac
    shift
done
for name in jobs threads; do
    [[ ${!name} =~ ^([1-9][0-9]*)?$ ]] || fail "--$name is '${!name}'. Give a whole number above 0"
done
[[ $gpus =~ ^(0|[1-9][0-9]*)$ ]] || fail "--gpus is '$gpus'. Give a whole number"

use_environment
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
((gpus > 0)) || export CUDA_VISIBLE_DEVICES=
here=$(nvidia-smi --query-gpu=index --format=csv,noheader 2> /dev/null | xargs || true)
clone=$PWD
settled=$(cd "$called_in" && python "$clone/workflow/folders.py" "$profile" "$cluster" "$rehearse") \
    || exit 1
eval "$settled"
if [[ -n $from_predictions ]]; then
    exec python -m companion rebuild --profile "$profile"
fi
if [[ -n $site ]]; then
    use_extra site "what makes the site"
    work=$(mktemp -d "$results/.site.XXXXXX" 2> /dev/null) \
        || fail "$results cannot be written. Run ./run_all.sh --profile $profile first"
    trap 'rm -rf "$work"' EXIT
    mkdir "$work/pages"
    python -m sphinx -q -W --keep-going -c docs/site -D profile="${results##*/}" \
        -d "$work/read" "$work/pages" "$work/site" || fail "the site was not made, see above"
    cp "$work/site/README.html" "$work/site/index.html"
    rm -rf "$results/site" && mv "$work/site" "$results/site"
    echo "site: $results/site/index.html"
    exit
fi
[[ -z $packaged ]] || use_extra pilot "the pretrained weights of the stand-in"

# On GPUs no kernels can be held, and patches are made ready by as many threads as there are.
gpu_work() { export CLIPIT_KERNELS=${CLIPIT_KERNELS-native}; }
held() { [[ $(python -c 'from clipit_lib import kernels; print(kernels.level())') == avx2 ]]; }

each=$((gpus > 1 ? gpus : 1)) # processes that train one run
if [[ -n $cluster ]]; then
    use_cluster "$cluster"
    ((gpus == 0)) || gpu_work
    if held; then threads=1; fi
    : "${threads:=$((8 * each))}"
    where=(--workflow-profile "$cluster" ${jobs:+--jobs "$jobs"})
    unset CLIPIT_GPUS
else
    cores=$(nproc 2> /dev/null || getconf _NPROCESSORS_ONLN)
    [[ -n $jobs ]] || jobs=$(($(wc -w <<< "$here") / each))
    ((jobs > 0)) || jobs=$((cores < 4 ? cores : 4))
    [[ -z $here ]] || gpu_work
    if held; then threads=1; fi
    # More threads than cores make parallel notebooks many times slower.
    : "${threads:=$((cores > jobs ? cores / jobs : 1))}"
    where=(--cores $((jobs * threads)) --jobs "$jobs")
    export CLIPIT_GPUS=$here
fi

# Where no home can be made, Snakemake's caches and those of others go to the results.
caches=${XDG_CACHE_HOME:-~/.cache}
mkdir -p "$caches" 2> /dev/null || export XDG_CACHE_HOME=$results/.cache

snakemake() {
    python -m snakemake --snakefile workflow/Snakefile --directory "$results" --nolock \
        --config profile="$config" threads="$threads" gpus="$gpus" "${where[@]}" \
        --scheduler greedy --keep-going --rerun-incomplete "$@" ${rest[@]+"${rest[@]}"}
}

if [[ -n $rehearse ]]; then
    export CLIPIT_KERNELS=${CLIPIT_KERNELS-native} # as where the profile itself runs: on GPUs
    [[ -n $dry_run ]] || python -m companion rehearse --profile "$profile"
fi
if [[ -n $dry_run ]]; then
    python -m companion plan --runs --profile "$profile"
    snakemake --dry-run --quiet rules host reason 2>&1 | sed -n '1,/^total/p'
    exit
fi

logs=$results/notebooks/logs
mkdir -p "$logs" || fail "cannot write $results. Set CLIPIT_OUTPUT to a folder of yours"
# This lock, not Snakemake's own, which outlives a killed run.
exec 9> "$results/.run.lock"
take_lock python 9 || {
    (($? == 2)) || fail "profile $profile is already running in $results. Wait for it or stop it"
    # Nor could jobs share GPUs out among them.
    [[ -z ${CLIPIT_GPUS:-} ]] || where+=(--jobs 1) jobs=1 CLIPIT_GPUS=
}
rm -f "$logs"/*.failed "$results"/notebooks/.*.ipynb # what a killed run left

if [[ $profile == demo && ! -d $results/runs ]]; then
    echo "Results from the predictions that came with this folder; training replaces them:"
    python -m companion rebuild --profile demo || fail "they cannot be shown, see above"
fi

chatter=$logs/snakemake.log status=0
CLIPIT_STARTED=$(date +%s) && export CLIPIT_STARTED # the jobs say how much time is left
echo "Running profile $profile: ${jobs:-many} jobs at a time, threads each: $threads."
if [[ -z $cluster ]]; then
    snakemake 2> "$chatter" || status=$? # the jobs say here how they went
else
    snakemake 2>&1 | tee "$chatter" || status=$? # they run elsewhere: Snakemake tells
fi
if ((status)); then
    if compgen -G "$logs/*.failed" > /dev/null; then
        echo "error: not finished. What failed, and its log:" && cat "$logs"/*.failed
    elif [[ -f $chatter ]]; then
        echo "error: the workflow stopped. The end of $chatter:" && tail -n 4 "$chatter"
    fi >&2
    exit "$status"
fi
cat << TEXT
Finished profile $profile in $SECONDS s on this machine ($(nproc 2> /dev/null || echo '?') cores).
  all on one page     $results/report.html
  tables              $results/tables
  figures             $figures
  executed notebooks  $results/notebooks
TEXT

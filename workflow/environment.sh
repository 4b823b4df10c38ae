# Sourced by run_all.sh and run_tests.sh in the repository. `use_environment [EXTRA...]` puts a
# Python that has every dependency first on PATH: that of the active environment if it is
# complete, else of .venv, which is made when needed.

# glibc gives large blocks back to the kernel at once, and each training step faults them in anew:
# that took up to half of the time. Kept, they are there for the next step.
export MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_-2147483648}
export MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_-8589934592}

fail() {
    echo "error: $*" >&2
    exit 1
}

use_environment() {
    local active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}} lacks
    if [[ -x $active/bin/python ]]; then
        if lacks=$("$active/bin/python" workflow/missing.py "$@"); then
            export PATH=$active/bin:$PATH
            return
        fi
        echo "The active environment $active lacks $lacks: using .venv instead."
    fi
    venv_is_whole || make_venv
    export VIRTUAL_ENV=$PWD/.venv PATH=$PWD/.venv/bin:$PATH
}

# use_extra EXTRA WORDS: what requirements-EXTRA.lock pins; --no-deps because pilot declares more.
use_extra() {
    python workflow/missing.py "$1" > /dev/null && return
    echo "Installing $2 ..."
    python -m pip install -qq --no-deps -r "requirements-$1.lock" \
        || fail "$2 could not be installed. Check the network and run again"
}

# use_cluster FOLDER: checks a Snakemake profile and what it needs.
use_cluster() {
    local lacks
    [[ -f $1/config.yaml ]] || fail "--cluster is '$1'. Give slurm or a folder that holds a" \
        "Snakemake profile, config.yaml"
    grep -q '^executor: *slurm' "$1/config.yaml" || return 0
    lacks=$(python workflow/missing.py cluster) \
        || fail "--cluster needs $lacks. Install it: $(command -v python) -m pip install '$lacks'"
    command -v sbatch > /dev/null || fail "--cluster needs sbatch: run this where jobs are submitted"
}

# The lock is copied into .venv last: a half-made or outdated one has no equal copy.
venv_is_whole() {
    cmp -s requirements.lock .venv/requirements.lock && .venv/bin/python -c '' 2> /dev/null
}

make_venv() {
    local python
    python=$(find_python) || exit 1
    exec 7> .venv.lock
    take_lock "$python" 7 || (($? == 2)) || {
        echo "Waiting for another run that makes .venv ..."
        take_lock "$python" 7 wait
    }
    if ! venv_is_whole; then
        echo "Making the environment in .venv (7 GB: minutes, by the network) ..."
        rm -rf .venv
        "$python" -m venv .venv \
            && .venv/bin/python -m pip install -qq -r requirements.lock \
            && .venv/bin/python -m pip install -qq --no-deps --no-build-isolation -e . \
            && cp requirements.lock .venv/requirements.lock \
            || fail "the environment could not be made (see above). Check the network and that" \
                "8 GB are free, then run again: a half-made .venv is made anew"
    fi
    exec 7>&-
}

find_python() {
    local python
    for python in python3.11 python3; do
        if "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2> /dev/null; then
            "$python" -c 'import ensurepip, venv' 2> /dev/null \
                || fail "$python has no venv module. Install it (Debian: apt install python3.11-venv)"
            echo "$python"
            return
        fi
    done
    fail "python3.11 was not found. Install it (Debian: apt install python3.11-venv) or run" \
        "'conda env create -f environment.yml && conda activate clipit' first"
}

# take_lock PYTHON FD [wait]: lock an open file for this script and all it starts; 1: another has
# it, 2: there are no locks, which is said. Python stands in for flock(1), which macOS lacks.
take_lock() {
    "$1" - "$2" "${3:-}" << 'CODE'
import fcntl
import sys

try:
    fcntl.flock(int(sys.argv[1]), fcntl.LOCK_EX | (0 if sys.argv[2] else fcntl.LOCK_NB))
except (BlockingIOError, PermissionError):
    sys.exit(1)
except OSError as error:
    print(f"Note: no locks on this disk ({error.strerror}): see that nobody starts a second run.")
    sys.exit(2)
CODE
}

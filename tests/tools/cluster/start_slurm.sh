#!/usr/bin/env bash
# A SLURM of one node on this machine, to try the workflow on; see README.md. Needs root and the
# Debian packages slurmctld, slurmd, slurm-client, slurm-wlm-basic-plugins and munge.
# usage: start_slurm.sh FOLDER [GPUS]    starts it; its files go to FOLDER
#        start_slurm.sh FOLDER stop
set -euo pipefail

folder=$(mkdir -p "$1" && cd "$1" && pwd) gpus=${2:-0}
installed=/etc/slurm # where every command looks: job steps forget SLURM_CONF
case $folder in *' '*) echo "error: no space may be in $folder" >&2 && exit 1 ;; esac

if [[ $gpus == stop ]]; then
    for daemon in slurmd slurmctld munged; do
        [[ ! -f $folder/$daemon.pid ]] || kill "$(< "$folder/$daemon.pid")" 2> /dev/null || true
    done
    for file in "$installed"/{slurm,gres}.conf; do
        [[ ! -L $file ]] || rm "$file"
    done
    exit
fi
if [[ -f $installed/slurm.conf && ! -L $installed/slurm.conf ]]; then
    echo "error: this machine has a SLURM of its own: $installed" >&2 && exit 1
fi
ln -sf "$folder"/{slurm,gres}.conf "$installed"

host=$(hostname -s) cores=$(nproc)
memory=$(($(awk '/^MemTotal/ {print $2}' /proc/meminfo) / 1024)) # MiB

# GPUs that are only files: SLURM counts them and hands them out, nothing computes on them.
gres='' devices=()
for ((gpu = 0; gpu < gpus; gpu++)); do
    touch "$folder/gpu$gpu" && devices+=("$folder/gpu$gpu")
done
: > "$folder/gres.conf"
if ((gpus > 0)); then
    gres="Gres=gpu:$gpus"
    printf 'NodeName=%s Name=gpu File=%s\n' "$host" "$(IFS=, && echo "${devices[*]}")" \
        > "$folder/gres.conf"
fi

# The node claims eight times what it has, so that requests sized for a cluster fit; without
# cgroups and accounting, which want systemd and a database.
cat > "$folder/slurm.conf" << TEXT
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
ReturnToService=2
MinJobAge=600
KillWait=5
MpiDefault=none
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=$((cores * 8)) RealMemory=$((memory * 8)) $gres State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
TEXT
mkdir -p "$folder/state" "$folder/spool"

[[ -f $folder/munge.key ]] || head -c 1024 /dev/urandom > "$folder/munge.key"
chmod 600 "$folder/munge.key"
munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
    --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" --seed-file="$folder/munge.seed"
slurmctld
slurmd

for ((second = 0; second < 30; second++)); do
    [[ $(sinfo --noheader --format=%t 2> /dev/null) != idle ]] || break
    sleep 1
done
sinfo

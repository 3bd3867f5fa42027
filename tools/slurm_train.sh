#!/usr/bin/env bash
# Train under Slurm: tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]
# GPUS (8 in all), GPUS_PER_NODE (8), CPUS_PER_TASK (5), SRUN_ARGS and PORT (29500) may be set.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG [options of tools/train.py]" >&2
    exit 2
fi
partition=$1
job_name=$2
shift 2
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-8}
if [ "$per_node" -gt "$gpus" ]; then per_node=$gpus; fi
export MASTER_PORT=${PORT:-29500}
# One task that fails ends them all; without this the others would wait for it.
# shellcheck disable=SC2086  # SRUN_ARGS holds several words
exec srun --partition "$partition" --job-name "$job_name" --gres "gpu:$per_node" \
    --ntasks "$gpus" --ntasks-per-node "$per_node" --cpus-per-task "${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$(dirname "$0")/train.py" "$@" --launcher slurm

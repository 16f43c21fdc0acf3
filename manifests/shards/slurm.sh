#!/bin/bash
# sbatch slurm.sh; afterwards: runner merge kittens-all ~/kittens/shard-*
#SBATCH --job-name=kittens
#SBATCH --array=0-3
#SBATCH --requeue
# SIGTERM some minutes before the end of the time: POSTs on their way and downloads in hand end.
#SBATCH --signal=TERM@150
#SBATCH --time=24:00:00
#SBATCH --cpus-per-task=1
#SBATCH --mem=1G

# The number of shards, as in --array. It stays the same even if only some tasks of the array are submitted again.
export RUNNER_SHARDS=4
# A folder that all nodes share.
videos=${VIDEOS:-$HOME/kittens}

# With JOURNAL=file:///FOLDER on a shared disk, or s3://BUCKET/PREFIX, a shard outlives its node and its run directory.
exec runner run "${MANIFEST:-$HOME/kittens.yaml}" --shard auto -o "$videos/shard-$SLURM_ARRAY_TASK_ID" --quiet \
    ${JOURNAL:+--journal "$JOURNAL"}

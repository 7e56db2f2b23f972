#!/bin/bash
#SBATCH --job-name=learning-rates
#SBATCH --array=0-5
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=01:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.log
# Three learning rates with two seeds each. Two minutes before its time limit a task saves, goes back into the queue and
# continues from there. Arguments are overrides of other keys: sbatch sweep.sh trainer.epochs=20
set -euo pipefail

learning_rates=(1e-4 3e-4 1e-3)
seeds=(0 1)
task=$SLURM_ARRAY_TASK_ID
learning_rate=${learning_rates[task / ${#seeds[@]}]}
seed=${seeds[task % ${#seeds[@]}]}

# `exec`, so that SLURM's signals reach mlxlab and not this shell. The folder is the same after each requeue.
exec mlxlab train experiment=titanic "trainer.learning_rate=$learning_rate" "seed=$seed" \
    "hydra.run.dir=outputs/learning-rates-$SLURM_ARRAY_JOB_ID/$task" \
    resume=auto signals.requeue=true checkpointing.every_steps=50 tracking=none "$@"

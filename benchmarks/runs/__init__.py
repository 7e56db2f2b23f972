"""What a run writes: checkpoints, copies, tracking, the store."""

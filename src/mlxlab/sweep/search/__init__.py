"""A search: a study whose trials a sampler proposes, and a pruner may stop early."""

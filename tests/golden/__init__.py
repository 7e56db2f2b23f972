"""Golden values: runs of 20 steps must equal those of an earlier commit, bit for bit."""

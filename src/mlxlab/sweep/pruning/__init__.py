"""Which trials of a search stop early, and which of them continue."""

"""Reading and tokenising: speed, seconds to the first step, curricula."""

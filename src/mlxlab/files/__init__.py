"""Files of our own: written whole or not at all, and read back as if a stranger had written them."""

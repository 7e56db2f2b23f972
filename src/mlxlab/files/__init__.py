"""The files that the program writes: written atomically, and checked like untrusted input when read."""

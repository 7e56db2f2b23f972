"""The command `trial`: trains a baseline and a change of it in pairs until their gains decide."""

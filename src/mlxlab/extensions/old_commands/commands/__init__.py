"""Commands of this extension, each a module with `main`."""

"""The documentation site: a reference made from signatures and YAML files, links, and checks of the result."""

"""Everything that is shown of a run: values for templates, checks, tables and plots."""

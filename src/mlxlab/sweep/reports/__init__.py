"""What a sweep leaves behind: the report in its folder, and the table printed at the end of a search."""

"""Data of the user: what will hurt, what the text contributed, which run to deploy."""

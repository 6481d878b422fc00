"""The steps of the schema's history, in the order of their numbers."""

"""The export formats: one file each, and the tuple that lists them."""

"""The Cards tab: what fits on which GPU."""

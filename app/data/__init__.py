"""The Data tab, and the dataset being looked at."""

"""The Runs tab: the table and the comparison."""

"""The Export tab, with upload to and import from elsewhere."""

"""From a recipe to a queued run: typed input checked, an adapter to start from settled, refused where it cannot be."""

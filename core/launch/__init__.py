"""From a recipe to a queued run: checks typed input, settles the adapter to start from, refuses what cannot work."""

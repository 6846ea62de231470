"""What comes from strangers: paths, archives, model and adapter files, chat templates. No torch."""

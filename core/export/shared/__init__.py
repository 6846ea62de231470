"""What every export stands on: its source, destination, options, names, and tokenizer files."""

"""The adapter in PEFT's own format."""

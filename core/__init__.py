"""The engine: everything that Nibble does, without a screen. Nothing in here imports gradio."""

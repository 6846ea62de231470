"""The Gradio house: looks, never trains. Imports no torch."""

"""Serving: an OpenAI-compatible endpoint on this machine, over the chat's process. Imports no torch.

Not `transformers serve` (5.23): that has no API key, knows no adapters by name, loads whatever model a request names,
and does not check the Origin.
"""

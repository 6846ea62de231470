"""A base model as its files describe it, before any of its weights is loaded or trained."""

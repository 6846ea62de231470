"""Rows to conversations: recognise how a dataset is laid out, and turn each row into messages or a reason."""

"""Datasets: file to rows, rows to messages, messages to tokens and a loss mask."""

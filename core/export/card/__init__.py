"""The README of an export, and what lies beside it."""

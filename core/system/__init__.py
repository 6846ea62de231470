"""This machine and its processes; nothing about models or data. No torch."""

"""The System tab and the notification settings."""

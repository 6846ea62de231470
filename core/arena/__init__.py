"""The arena: blind votes between models, and what they come down to: Elo, Bradley-Terry, win rates."""

"""The arena: blind votes between voices, and what they come down to: Elo, Bradley-Terry, win rates."""

"""The Arena tab: the match, the jobs beside it, the leaderboard."""

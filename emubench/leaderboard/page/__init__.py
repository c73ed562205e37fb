"""The static site of the leaderboard, made of the entries alone."""

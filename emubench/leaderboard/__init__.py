"""What is made of many runs: rankings and their statistics, plots, submissions, and the leaderboard's page."""

"""The leaderboard's page: a static site made of the entries alone, by ``emubench leaderboard build``."""

"""Submissions to the leaderboard: a folder ``leaderboard/entries/<name>/`` that a stranger may have written.

:mod:`~emubench.leaderboard.submission.entries` says what it holds, :mod:`~emubench.leaderboard.submission.checks`
validates it without executing anything, :mod:`~emubench.leaderboard.submission.judge` scores it in a child process,
:mod:`~emubench.leaderboard.submission.season` on data that nobody has seen.
"""

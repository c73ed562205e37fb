"""Submissions to the leaderboard: a folder ``leaderboard/entries/<name>/`` that a stranger may have written.

:mod:`~emubench.submission.entry` says what it holds, :mod:`~emubench.submission.check` validates it without executing
anything, :mod:`~emubench.submission.judge` scores it in a child process, :mod:`~emubench.submission.season` on data
that nobody has seen.
"""

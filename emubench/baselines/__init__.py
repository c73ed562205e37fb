"""The baselines, one method per file: in a checkout its folder ``baselines/``, in a wheel the files beside this one."""

from pathlib import Path

_root = Path(__file__).resolve().parents[2]
if (_root / "pyproject.toml").is_file() and (_root / "baselines").is_dir():
    __path__ = [str(_root / "baselines")]

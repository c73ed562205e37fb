"""The contracts that others can run: each check raises AssertionError that says what was broken, and where.

They need no files: each makes the few data that it looks at. A check that ends without an error found the contract
kept. The tests of this repository run them on every system, metric and baseline that there is.

>>> from emubench import systems, testing
>>> testing.check_system(systems.get("lorenz63"))
"""

from emubench.testing.baselines import check_baseline
from emubench.testing.emulators import check_emulator
from emubench.testing.metrics import check_metric
from emubench.testing.systems import Measurement, check_system, measure_facts

__all__ = ["Measurement", "check_baseline", "check_emulator", "check_metric", "check_system", "measure_facts"]

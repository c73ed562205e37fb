"""The ensemble filters beside DAPPER's on its own settings: the same truth, observations and members, in one run.

``python -m pytest -s benchmarks/test_assimilation.py`` with the extra ``peers``. DAPPER (doi:10.21105/joss.05150) lists
what a setting should reach: root mean square error .18 to .22 on Lorenz-96 (all 40 sites seen every 0.05, σ = 1) and
about .60 on Lorenz-63 (all three components seen every 0.25, variance 2). Both are timed for the whole experiment.
"""

from __future__ import annotations

import importlib
import time

import numpy as np
import pytest
import torch

from emubench import systems
from emubench.learning.filters.ensemble import localised_update, ring_localisation, transform_update

dapper = pytest.importorskip("dapper.mods")
CYCLES, SPIN_UP = 2000, 100
SETTINGS = [
    ("Lorenz63.sakov2012", "lorenz63", 10, 1.02, 0.0),
    ("Lorenz96.sakov2008", "lorenz96", 28, 1.02, 0.0),
    ("Lorenz96.sakov2008", "lorenz96", 10, 1.04, 4.0),
]


def theirs(hmm, truth, observed, members: int, inflation: float, radius: float) -> np.ndarray:
    """Analysis errors of DAPPER's filter, per cycle."""
    from dapper.da_methods.ensemble import LETKF, EnKF

    local = {"loc_rad": radius, "rot": True, "mp": False}
    method = LETKF(N=members, infl=inflation, **local) if radius else EnKF("Sqrt", N=members, infl=inflation)
    method.assimilate(hmm, truth, observed, liveplots=False)
    return np.asarray(method.stats.err.rms.a)


def ours(hmm, truth, observed, system: str, members: int, inflation: float, radius: float) -> np.ndarray:
    """Analysis errors of our filter on the same experiment, the same Runge–Kutta step."""
    step = systems.get(system).solver(hmm.tseq.dt)
    per_cycle = round(hmm.tseq.dto / hmm.tseq.dt)
    noise = torch.from_numpy(np.sqrt(hmm.Obs(1).noise.C.diag))
    ensemble = torch.from_numpy(hmm.X0.sample(members))[:, None]
    taper = ring_localisation(hmm.Nx, radius) if radius else None
    errors = []
    for k, y in enumerate(torch.from_numpy(np.stack(list(observed)))):
        for _ in range(per_cycle):
            ensemble = step(ensemble, None)
        parts = ensemble, ensemble, y[None], noise
        ensemble = transform_update(*parts) if taper is None else localised_update(*parts, taper)
        mean = ensemble.mean(0)
        ensemble = mean + inflation * (ensemble - mean)  # where DAPPER inflates: after the analysis
        state = truth[(k + 1) * per_cycle]
        errors.append(float(np.sqrt(((ensemble.mean(0)[0].numpy() - state) ** 2).mean())))
    return np.array(errors)


def blocks(errors: np.ndarray) -> np.ndarray:
    """Means over blocks of 100 cycles after the spin-up: long enough to be independent."""
    kept = errors[SPIN_UP : SPIN_UP + (len(errors) - SPIN_UP) // 100 * 100]
    return kept.reshape(-1, 100).mean(1)


@pytest.mark.parametrize(("module", "system", "members", "inflation", "radius"), SETTINGS)
def test_filters_agree_with_dapper(module, system, members, inflation, radius):
    """Without localisation the same filter: equal errors, until chaos has grown the rounding. With it, of equal skill:
    errors averaged over time agree within 5 % or three standard errors of their paired difference.
    """
    torch.set_num_threads(1)
    hmm = importlib.import_module(f"dapper.mods.{module}").HMM.copy()
    hmm.tseq.Ko, hmm.tseq.BurnIn = CYCLES, SPIN_UP * hmm.tseq.dto
    seed = importlib.import_module("dapper.tools.seeding").set_seed
    seed(3000)
    truth, observed = hmm.simulate()
    errors, found, text = [], [], []
    for name, run in (
        ("DAPPER", lambda: theirs(hmm, truth, observed, members, inflation, radius)),
        ("emubench", lambda: ours(hmm, truth, observed, system, members, inflation, radius)),
    ):
        seed(3001)  # of the first ensemble
        begun = time.perf_counter()
        errors.append(run())
        found.append(error := blocks(errors[-1]))
        text.append(f"{name} {error.mean():.3f} in {time.perf_counter() - begun:.1f} s")
    difference = found[1] - found[0]
    allowed = max(3 * difference.std(ddof=1) / len(difference) ** 0.5, 0.05 * found[0].mean())
    print(f"{module}, {members} members, radius {radius:g}: {', '.join(text)}, may differ by {allowed:.3f}")
    if not radius:
        np.testing.assert_allclose(errors[1][:20], errors[0][:20], rtol=1e-6)
    assert abs(difference.mean()) <= allowed

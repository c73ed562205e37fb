"""Fair energy score of an ensemble, for systems scored in law: the CRPS of all sites at once.

ES = (mean_i ‖x_i − y‖ − 1/(2 M (M − 1)) Σ_ij ‖x_i − x_j‖) / √N, with x and y as for ``crps``, at all N sites, and
‖·‖ the Euclidean norm; with one member it is the root-mean-square error. Gneiting & Raftery 2007,
doi:10.1198/016214506000001437; in its fair form unbiased in the number of members M, as the CRPS (Ferro 2014,
doi:10.1002/qj.2270). Mean over the leads 1, 2, 4 … 128, and each of them. Lower is better; 0 at best. A
failed forecast counts 10 σ, which is also the cap. A proper score of the joint law, so it can see wrong correlations
between sites, but weakly: it is mostly about means and spreads (Pinson & Tastu 2013, "Discrimination ability of the
energy score", Technical University of Denmark).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from emubench.metrics import Summary, Truth, _ensemble
from emubench.metrics.crps import applies as applies

split = "test"


def fair_energy_score(members: Float[Tensor, "M ... N"], truth: Float[Tensor, "... N"]) -> Tensor:
    """Fair energy score per √N, members along the first axis.

    >>> float(fair_energy_score(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([0.0, 0.0]))) * 2**0.5
    0.0
    """
    m, n = members.shape[0], members.shape[-1]
    distance = (members - truth).norm(dim=-1).mean(0)
    if m > 1:
        last = members.movedim(0, -2)
        pairs = torch.cdist(last, last, compute_mode="donot_use_mm_for_euclid_dist")
        distance = distance - pairs.sum((-2, -1)) / (2 * m * (m - 1))
    return distance / n**0.5


def summarise(forecast: Float[Tensor, "M B T *S"], truth: Truth) -> Summary:
    """The score per lead, and its mean over leads."""
    given = _ensemble.at_leads(forecast, truth)
    by_lead = given.capped(fair_energy_score(given.members, given.truth))
    rows = _ensemble.rows("energy_score", truth, _ensemble.unit(truth.task), -1, (0.0, given.cap))
    return Summary(by_lead, rows, _ensemble.with_mean)

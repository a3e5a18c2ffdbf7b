"""What is promised about `stop` and `scale`, learned from past batches, and when a promise is withdrawn.

The batch is the unit: SKUs of one batch share a season and a crowd, so past batches, not past SKUs, are what a new
batch is compared with. All promises rest on one belief: that a new batch is exchangeable with the past ones.
`check_promise` bets against what follows from it and says when it can't be held any longer.

References
----------
.. [1] V. Vovk, A. Gammerman, G. Shafer, Algorithmic Learning in a Random World, Springer, 2005 (2nd edition 2022).
.. [2] A. N. Angelopoulos, S. Bates, A. Fisch, L. Lei, T. Schuster, Conformal Risk Control, ICLR 2024.
.. [3] V. Vovk, On-line confidence machines are well-calibrated, FOCS 2002.
.. [4] G. Shafer, V. Vovk, Game-Theoretic Foundations for Probability and Finance, Wiley, 2019.
.. [5] I. Waudby-Smith, A. Ramdas, Estimating means of bounded random variables by betting, JRSS B 86(1), 2024.
.. [6] J. Shin, A. Ramdas, A. Rinaldo, E-detectors, The New England Journal of Statistics in Data Science, 2023.
.. [7] A. N. Angelopoulos, S. Bates, E. J. Candès, M. I. Jordan, L. Lei, Learn then Test, The Annals of Applied
   Statistics 19(2), 2025 (arXiv:2110.01052).
.. [8] S. Bates, A. Angelopoulos, L. Lei, J. Malik, M. I. Jordan, Distribution-free, risk-controlling prediction sets,
   Journal of the ACM 68(6), 2021.
"""

from hitfinder.promise.check import PATIENCE, STAKES, PromiseCheck, check_promise, count_kept, withdraw_promise
from hitfinder.promise.scaling import SCALE_GRID, promise_scale
from hitfinder.promise.sentences import ScalePromise, StopPromise
from hitfinder.promise.stopping import forward_losses, promise_needs, promise_stop

__all__ = [
    "PATIENCE",
    "SCALE_GRID",
    "STAKES",
    "PromiseCheck",
    "ScalePromise",
    "StopPromise",
    "check_promise",
    "count_kept",
    "forward_losses",
    "promise_needs",
    "promise_scale",
    "promise_stop",
    "withdraw_promise",
]

"""How surprising a count is: the probability part of a number of false alarms."""

import math


def log10_binomial_tail(successes: float, trials: float, probability: float) -> float:
    """log10 P(X ≥ successes), X binomial, bounded from above (Chernoff), so that it never underflows.

    Args:
        successes: 0 to ``trials``; need not be whole.
        trials: above 0; need not be whole.
        probability: of a success, strictly between 0 and 1.

    Returns:
        0 or less; 0 where there are no more successes than expected.
    """
    share = min(successes / trials, 1.0)
    if share <= probability:
        return 0.0
    divergence = share * math.log(share / probability)
    if share < 1:
        divergence += (1 - share) * math.log((1 - share) / (1 - probability))
    return -trials * divergence / math.log(10)

"""*A contrario* detection: energy and exceedance maps in, a map of −log10 NFA out.

Source: Tailanian, Pardo, Musé, "U-Flow: A U-shaped Normalizing Flow for Anomaly Detection with Unsupervised
Threshold", JMIV 2024 (arXiv 2211.12353), section 4; the block score is the older variant of arXiv 2211.12353v1.

A score is −log10 of the number of false alarms (NFA): higher is more anomalous, and at a score above 0 fewer than
one detection per image is expected by chance.
"""

from typing import Literal, TypeAlias

from uflow_edge.runtime.nfa.block import block_score
from uflow_edge.runtime.nfa.likelihood import likelihood_map
from uflow_edge.runtime.nfa.regions import Region, regions_above
from uflow_edge.runtime.nfa.tree import DEFAULT_RULE, TREE_RULES, TreeRule, tree_score

__all__ = ["DEFAULT_RULE", "RULES", "Region", "Rule", "block_score", "likelihood_map", "regions_above", "tree_score"]

Rule: TypeAlias = Literal[TreeRule, "block"]
"""How scores are computed: from energies, by one of the tree rules, or from exceedances, by the block rule."""
RULES: tuple[Rule, ...] = (*TREE_RULES, "block")

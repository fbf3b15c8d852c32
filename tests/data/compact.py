"""Make the compact copy of the reference arrays that travels with the repository.

Usage: python tests/data/compact.py <folder of the U-Flow reference>
"""

import shutil
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
IMAGES = ("good", "defective", "painted")
QUANTILE = 2.705543454095404  # of the chi-square law with one degree of freedom, at 0.9


def main(reference: Path) -> None:
    shutil.copyfile(reference / "nfa_cases.npz", HERE / "nfa_cases.npz")
    full = np.load(reference / "end_to_end.npz")
    compact = {"log10_ntests": full["log10_ntests"]}
    for image in IMAGES:
        for scale in range(3):
            compact[f"{image}/channels_{scale}"] = np.int32(full[f"{image}/z_{scale}"].shape[0])
            compact[f"{image}/energy_{scale}"] = full[f"{image}/energy_{scale}"]
            exceeding = np.square(full[f"{image}/z_{scale}"]) >= QUANTILE
            compact[f"{image}/exceed_{scale}"] = exceeding.sum(axis=0, dtype=np.int16)
            compact[f"{image}/tree_logprob_{scale}"] = full[f"{image}/tree_logprob_{scale}"]
            compact[f"{image}/block_logprob_{scale}"] = full[f"{image}/block_logprob_{scale}"]
        for score in ("tree_score_256", "block_score_256", "likelihood_256"):
            compact[f"{image}/{score}"] = full[f"{image}/{score}"]
    np.savez_compressed(HERE / "energy_cases.npz", **compact)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

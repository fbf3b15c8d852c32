"""Checkpoints in: ours, the authors' and anomalib's, read without running any code of theirs."""

"""The null model: what good images teach about latents, fitted and checked."""

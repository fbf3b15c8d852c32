"""The null model, fitted to latents of good images and checked on others."""

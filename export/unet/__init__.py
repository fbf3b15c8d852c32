"""Diffusion UNets: guided-diffusion's and diffusers' checkpoints in, bundles out."""

"""Others that do the same job, on the same pictures, in the same run (docs/peers.md)."""

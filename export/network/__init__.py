"""The network in torch: extractor, flow, lowering, energies."""

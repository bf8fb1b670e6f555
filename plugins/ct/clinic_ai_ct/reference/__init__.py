"""The reference model: trained on phantoms drawn by seed, so that the appliance works before a clinic has a model."""

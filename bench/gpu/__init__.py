"""Proofs on GPUs: a slug's own recipe, scaled to the cards there are, with random weights in the model's real shape."""

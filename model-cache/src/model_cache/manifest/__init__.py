"""What a snapshot consists of, and the documents that say so: the hub's listing, weights.lock, the card.

Nothing here asks a network or changes a volume.
"""

"""What a snapshot consists of, by the hub's listing, weights.lock and the card. Asks no network, changes no volume."""

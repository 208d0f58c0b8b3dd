"""What the operator says: settings, cards, options of models, keys. Read and checked; nothing here acts on it."""

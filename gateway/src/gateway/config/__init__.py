"""What the operator says: settings, cards, options of models, keys, field policy. Read and checked, not acted on."""

"""The weights volume: its layout, its locks, READY.json, hashing, and files that are opened without following a link.
Nothing here knows where files come from."""

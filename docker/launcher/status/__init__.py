"""What the launcher reports: its log, the state file, the ops port, and how long earlier starts took. Nothing here
decides what the launcher does next."""

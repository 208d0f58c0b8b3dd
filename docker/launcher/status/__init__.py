"""What the launcher tells about itself: its log, the state file, the ops port, how long earlier starts took.

Nothing here decides what the launcher does next.
"""

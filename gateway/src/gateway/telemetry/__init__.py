"""What is counted and logged, and how it is written. Others call it; it decides nothing."""

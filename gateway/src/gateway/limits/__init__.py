"""How much each API key may use: sliding windows in memory that the gateway's processes share, and the limiter."""

"""The record of usage: what the requests of each API key came to, for bills and for monthly limits."""

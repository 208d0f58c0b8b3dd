"""Benchmarks: programs that print what Octet costs, measured on the machine they run on."""

"""Deterministic workflow code: provision, release, reclaim and enrol, and the table of steps with their undo."""

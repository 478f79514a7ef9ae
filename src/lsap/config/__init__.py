"""Configurations: composing, checking, and what is taken from a stored run; imports no torch."""

"""Editing stored inversions, and finding directions."""

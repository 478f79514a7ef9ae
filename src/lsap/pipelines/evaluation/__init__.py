"""Comparing methods: stored runs and folders of pictures, measured under one protocol."""

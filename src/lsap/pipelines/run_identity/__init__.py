"""The folder of a run, determined by its settings, weights and images."""

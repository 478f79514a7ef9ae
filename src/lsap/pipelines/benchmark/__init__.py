"""Speed ratios of implementations, interleaved within one run."""

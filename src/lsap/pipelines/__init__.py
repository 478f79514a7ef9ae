"""From a configuration to objects and a finished run: what the commands do."""

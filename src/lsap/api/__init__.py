"""lsap from Python: `lsap.load`, `Inverter`, images in memory and inversions in files."""

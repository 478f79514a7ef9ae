"""The page with sliders (`python -m lsap.app`)."""

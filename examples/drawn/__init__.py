"""Drawn datasets in the layouts of FashionIQ and CIRR, on which the examples run in minutes."""

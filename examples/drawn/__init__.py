"""Drawn datasets in the layouts of FashionIQ and CIRR, so that the examples run in minutes."""

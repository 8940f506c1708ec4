"""The private ground floor: what every room may use."""

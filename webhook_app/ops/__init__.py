"""For machines: health, metrics and logs."""

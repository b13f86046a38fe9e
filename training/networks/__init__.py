"""name → **network**."""

"""terminal → **commands** that need no torch: serve, classify, models, doctor."""

"""`linnaeus …` → **the six steps**: a module a command; it reads options and calls."""

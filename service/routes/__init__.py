"""The routes, one module a resource; each takes what it needs as an argument."""

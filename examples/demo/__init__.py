"""A page to search on, in rounds: serve.py starts it, docs/demo.md explains it."""

"""The same bundle, preprocessing and images behind other people's servers.

`python -m bench.peers` compares; `bench/peers/catalog.py` is the table of who takes
part and how each is arranged. The peers run in an environment of their own.
"""

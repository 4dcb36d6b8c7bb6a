"""Environments: tools and games that answer the policy turn by turn.

`rendering` writes their answers as tokens, `formats` reads the calls, `worker` runs users' code in
processes of its own, and each other module is an environment.
"""

"""Environments: tools and games that answer the policy turn by turn.

`rendering` writes their answers as tokens, `formats` reads the calls, `hosted` runs the code of
users and of models in processes of its own (`host`, `channel`, `jail`), `own` makes environments of
users' classes and functions, and `mixed` one of several.
"""

"""Mutation tests: nine wrong receivers; each flaw is put into a copy of the code, and a named test must fail.

`python -m tests.mutation` runs them all and prints which test caught which.
"""

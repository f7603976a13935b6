"""The pure core: what is registered, what a function asks of its context, and the replay of one attempt to a decision.

Knows no Django, no Celery and no database driver, so that all of it can be driven in one process without either.
"""

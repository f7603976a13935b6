"""A Django app like those of users: a model, and a durable flow that writes it."""

"""The Django app of chaos."""

from django.apps import AppConfig


class ChaosConfig(AppConfig):
    """Its name is all that there is to say."""

    name = "chaos"
    default_auto_field = "django.db.models.BigAutoField"

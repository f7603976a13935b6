"""The Django app: imports the modules with durable functions and registers their Celery tasks."""

from importlib import import_module

from django.apps import AppConfig


class FlowsConfig(AppConfig):
    """Durable request flows."""

    name = "flows"
    verbose_name = "Durable flows"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register everything that this process may be asked to start or to run. Touches no database."""
        from flows import checks  # noqa: F401 - registers the system checks
        from flows.conf import settings
        from flows.worker import signals  # noqa: F401 - connects the receivers
        from flows.worker.task import register_tasks

        for module in settings.MODULES:
            import_module(module)
        register_tasks()

"""The gateway under a WSGI server; routes that wait hold a thread each there, so ASGI is the better choice."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway_project.settings")

application = get_wsgi_application()

"""The environment variables of the stack's processes, and the secrets that it makes up and remembers."""

import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from local.ports import LOOPBACK, free_port


def environment(variables: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return a full environment for the Procfile's commands; what is set in our own is left as it is.

    `variables` win over both; secrets are kept under `folder`.
    """
    gateway_port, flower_port = _port("GATEWAY_PORT", 8000), _port("FLOWER_PORT", 5555)
    own = {
        "SECRET_KEY": remembered(folder / "secret-key"),
        "ALLOWED_HOSTS": f"{LOOPBACK},localhost",
        "FLOWER_BASIC_AUTH": f"flower:{remembered(folder / 'flower-password')}",
        "GATEWAY_PORT": gateway_port,
        "FLOWER_PORT": flower_port,
        "ADMIN_URL": f"http://{LOOPBACK}:{gateway_port}/admin/",
        "FLOWER_URL": f"http://{LOOPBACK}:{flower_port}",
        "PYTHONUNBUFFERED": "1",
    }
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return {**own, **os.environ, **variables, "PATH": path}


def remembered(path: Path) -> str:
    """Return the secret kept in a file of ours, made up at the first call."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(24))
    return path.read_text()


def _port(variable: str, default: int) -> str:
    return os.environ.get(variable) or str(free_port(preferred=default))

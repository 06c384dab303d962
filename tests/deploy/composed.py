"""docker-compose.yml as Docker would read it: anchors resolved, variables put in."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"

# $${…} is an escaped dollar; then ${NAME}, ${NAME:-default} and ${NAME:?message}.
VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?:(:[-?])([^}]*))?\}")


class Missing(Exception):
    """A variable that must be set is not."""


def variables():
    """Return the names of all variables that the file looks at."""
    found = {match[1] for match in VARIABLE.finditer(FILE.read_text()) if match[1]}
    passed_on = {
        name
        for service in services().values()
        for name, value in service.get("environment", {}).items()
        if value is None
    }
    return found | passed_on


def filled(value, environment):
    """Return a value with its variables put in, as the Compose specification says."""
    if isinstance(value, dict):
        return {key: filled(one, environment) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one, environment) for one in value]
    if not isinstance(value, str):
        return value

    def put(match):
        name, mode, text = match.groups()
        if name is None:
            return "$"
        given = environment.get(name, "")
        if given or mode is None:
            return given
        if mode == ":?":
            raise Missing(name)
        return text

    return VARIABLE.sub(put, value)


def document(environment=None):
    """Return the whole file."""
    read = yaml.safe_load(FILE.read_text())
    return read if environment is None else filled(read, environment)


def services(environment=None):
    """Return the services by name."""
    return document(environment)["services"]

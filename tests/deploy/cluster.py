"""What a cluster would get of deploy/kubernetes, by service."""

from common.service import folders
from tests.deploy.kustomized import FOLDER, build

SERVICES = [folder.name for folder in folders()]
BUILT = {name: build(FOLDER / "services" / name) for name in SERVICES}
SCALERS = {name: build(FOLDER / "autoscaling" / name) for name in SERVICES}
OTHERS = {name: build(FOLDER / name) for name in ("shared", "gateway", "monitoring")}


def of(kind, objects):
    """Return the one object of a kind, or those, if there are several."""
    found = [one for one in objects if one["kind"] == kind]
    return found[0] if len(found) == 1 else found


def pod(name):
    """Return the pod template of a service."""
    return of("StatefulSet", BUILT[name])["spec"]["template"]


def container(name):
    """Return its only container."""
    (found,) = pod(name)["spec"]["containers"]
    return found


def environment(name):
    """Return the variables that a container is told, as in its first pod."""
    first = f"{of('StatefulSet', BUILT[name])['metadata']['name']}-0"
    told = {one["name"]: one.get("value") for one in container(name)["env"]}
    told["POD_NAME"] = first
    return {
        key: value and value.replace("$(POD_NAME)", first)
        for key, value in told.items()
    }

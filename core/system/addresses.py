"""Which host names this server answers to: only those that no foreign name server can point to this machine.

A web page elsewhere can have its own name resolve to 127.0.0.1 (DNS rebinding) and would then share its origin with the
app. It cannot do that with a literal address, with `localhost`, or with a name outside the public DNS.
"""

import ipaddress
import re
import socket
from collections.abc import Collection

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
# What home routers and mDNS hang behind a machine's name. None of them is sold to anybody.
LOCAL_ENDINGS = ("", ".local", ".lan", ".home.arpa", ".internal")
# What containers call the machine that they run on: Docker, Podman, Lima and Colima, OrbStack, Rancher, minikube, k3d.
# All are below `.internal`, which no public name server can answer for (ICANN, 2024-07-29).
CONTAINER_HOSTS = frozenset(
    {"host.docker.internal", "gateway.docker.internal", "kubernetes.docker.internal", "host.containers.internal"}
    | {"host.lima.internal", "host.orb.internal", "docker.orb.internal", "host.rancher-desktop.internal"}
    | {"host.minikube.internal", "host.k3d.internal"}
)
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::([0-9]{1,5}))?", re.ASCII)


class Names:
    """The Host headers that are served on `port`: the loopback names, and with `listen` this machine's other names.

    `also` are more names of this machine. Those in `admitted` are served with any port or none: a reverse proxy passes
    on the Host that it was asked for, with a port of its own. Both are in lower case. `tunnel` is the host of the
    public link, or None.
    """

    def __init__(
        self, port: int, listen: bool = False, also: Collection[str] = (), admitted: Collection[str] = ()
    ) -> None:
        self.port, self.listen, self.also, self.admitted = port, listen, also, admitted
        self.tunnel: str | None = None

    def served(self, host: str) -> bool:
        """Whether a request with this Host header may be answered at all."""
        given = host.lower()
        if self.tunnel is not None and given == self.tunnel:
            return True
        found = _HOST.fullmatch(given)
        if found is None:
            return False
        address, name, port = found.groups()
        if name in self.admitted:
            return True
        if int(port or 80) != self.port:
            return False
        own = (address or name) in LOOPBACK or (address or name) in self.also
        return own or (self.listen and _is_ours(address or name))


def machine_names() -> frozenset[str]:
    """What this machine is called on its own network."""
    name = socket.gethostname().lower()
    return frozenset({name, *(name.partition(".")[0] + ending for ending in LOCAL_ENDINGS)})


def lan_address() -> str | None:
    """This machine's address on its network, or None. Nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737): only the route is looked up
            found = str(probe.getsockname()[0])
        except OSError:
            return None
    return None if ipaddress.ip_address(found).is_loopback else found


def _is_ours(name: str) -> bool:
    """Whether it is a literal address, which cannot be rebound, or one of this machine's own names."""
    try:
        return not ipaddress.ip_address(name).is_unspecified
    except ValueError:
        return name in machine_names()

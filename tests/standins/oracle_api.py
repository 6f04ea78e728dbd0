"""A stand-in for Oracle Cloud's API: as much of Core Services and Identity as a network with one machine takes.

    python tests/standins/oracle_api.py --state DIRECTORY [--port 8082] [--launcher module:factory]

DIRECTORY gets a fresh API key, and `oracle.yml` with the variables that make the playbook use it and this stand-in.

What an operation is called, its path, its query, the shape of its body and of its answer are not written down here:
they are read out of Oracle's own SDK (`Operation`, `problems`), so neither a caller nor this stand-in can use a field
that Oracle does not have, or leave out one that it demands. What the SDK cannot tell is here: what follows from what,
in which states a resource is meanwhile, and what Oracle refuses. Sources: the SDK's docstrings, and
https://docs.oracle.com/iaas/Content/API/References/apierrors.htm.

Signatures are verified. State is kept in memory. A resource comes to its next state after it was looked at a few times,
not after a while: so tests need no clock. Whoever runs it in its own process uses the attributes of `OracleApi`;
otherwise there is, without a signature, `POST /standin/faults` (see Faults), `GET /standin/resources`, and
`GET /standin/lets_in?instance_id=…&address=…&port=…`.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import dataclasses
import email.utils
import functools
import hashlib
import importlib
import inspect
import ipaddress
import json
import re
import secrets
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

import oci.core.models
import oci.identity.models
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

BASE = "/20160918"
REGION = "eu-frankfurt-1"
CLIENTS = (
    oci.core.VirtualNetworkClient,
    oci.core.ComputeClient,
    oci.core.BlockstorageClient,
    oci.identity.IdentityClient,
)
FRESH = 300  # seconds that a request's date may be away from now
ANYWHERE = "0.0.0.0/0"
# Shape -> the processor that an image must be for, and whether it wants a shapeConfig.
SHAPES = {
    "VM.Standard.A1.Flex": ("aarch64", True),
    "VM.Standard.E4.Flex": ("x86_64", True),
    "VM.Standard.E2.1.Micro": ("x86_64", False),
}
MOST_RULES = 200  # ingress rules of one security list; as many egress rules
MOST_SECURITY_LISTS = 5  # of one subnet
MOST_CONSOLE = 10240  # bytes of a console history in one answer, unless more are asked for

VCN_DEFAULTS = ("defaultRouteTableId", "defaultSecurityListId", "defaultDhcpOptionsId")

Fields = dict[str, Any]


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def wrong(message: str) -> Refusal:
    return Refusal(400, "InvalidParameter", message)


def conflict(message: str) -> Refusal:
    return Refusal(409, "Conflict", message)


def unknown() -> Refusal:
    return Refusal(404, "NotAuthorizedOrNotFound", "Authorization failed or requested resource not found.")


def new_id(kind: str) -> str:
    return f"ocid1.{kind.lower()}.oc1.{REGION}.{base64.b32encode(secrets.token_bytes(35)).decode().lower()}"


# What the SDK says


@dataclass(frozen=True)
class Operation:
    """What one operation takes and answers; types are written as in the SDK: `Vcn`, `list[Vcn]`."""

    name: str
    method: str
    path: re.Pattern[str]
    query: frozenset[str]
    required: frozenset[str]  # parameters of path or query
    body: str | None
    answer: str | None


def operation(name: str) -> Operation:
    """Read out of the source of the client's method, which is generated, so it is the same all over."""
    method = next(getattr(client, name) for client in CLIENTS if hasattr(client, name))
    source = inspect.getsource(method)

    def found(pattern: str) -> str | None:
        match = re.search(pattern, source, re.DOTALL)
        return match[1] if match else None

    path = found(r'resource_path = "(.*?)"')
    assert path
    argument = found(r"body=(\w+)")
    return Operation(
        name,
        found(r'method = "(\w+)"') or "",
        re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", BASE + path)),
        frozenset(re.findall(r'"([\w.]+)":', found(r"query_params = \{(.*?)\n        \}") or "")),
        frozenset(re.findall(r"'(\w+)'", found(r"required_arguments = \[(.*?)\]") or "")),
        found(rf":param oci\.\w+\.models\.(\w+) {argument}: \(required\)") if argument else None,
        found(r'response_type="(.*?)"'),
    )


@functools.cache
def model(kind: str) -> Any:
    return getattr(oci.core.models, kind, None) or getattr(oci.identity.models, kind)


@functools.cache
def attributes(kind: str) -> dict[str, tuple[str, str, bool]]:
    """Name in JSON -> name in Python, type, and whether it is required."""
    blank = model(kind)()
    return {
        wire: (name, blank.swagger_types[name], "**[Required]**" in (getattr(model(kind), name).__doc__ or ""))
        for name, wire in blank.attribute_map.items()
    }


def is_datetime(value: Any) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


PRIMITIVES: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "datetime": is_datetime,
    "object": lambda value: True,
}


def problems(kind: str, value: Any, where: str) -> Iterator[str]:
    """What keeps a JSON value from being of a type of the SDK's: fields unknown, missing, of another type, or out of
    the allowed values.
    """
    if several := re.fullmatch(r"list\[(.+)\]", kind):
        if not isinstance(value, list):
            yield f"{where} is not a list"
            return
        for number, item in enumerate(value):
            yield from problems(several[1], item, f"{where}[{number}]")
    elif named := re.fullmatch(r"dict\(str, (.+)\)", kind):
        if not isinstance(value, dict):
            yield f"{where} is not an object"
            return
        for name, item in value.items():
            yield from problems(named[1], item, f"{where}.{name}")
    elif kind in PRIMITIVES:
        if not PRIMITIVES[kind](value):
            yield f"{where} is not of type {kind}: {value!r}"
    elif not isinstance(value, dict):
        yield f"{where} is not an object"
    else:
        yield from problems_of_model(kind, value, where)


def problems_of_model(kind: str, value: Fields, where: str) -> Iterator[str]:
    if hasattr(model(kind), "get_subtype"):
        try:
            subtype = model(kind).get_subtype(value)
        except KeyError as missing:
            yield f"{where} has no {missing}"
            return
        if subtype == kind:
            yield f"{where} is of no known type"
        kind = subtype
    known = attributes(kind)
    yield from (f"{where} has an unknown field {name}" for name in value.keys() - known.keys())
    blank = model(kind)()
    for wire, (name, type_, required) in known.items():
        item = value.get(wire)
        if item is None:
            if required:
                yield f"{where}.{wire} is missing"
            continue
        yield from problems(type_, item, f"{where}.{wire}")
        try:  # a model checks the allowed values itself: a request's complains, an answer's stores another one
            setattr(blank, name, item)
            allowed = getattr(blank, name) == item
        except ValueError:
            allowed = False
        if not allowed:
            yield f"{where}.{wire} may not be {item!r}"


# What the tests and a launcher see


class Launcher(Protocol):
    """What makes the machines. Each gets the instance as Oracle's JSON has it: id, displayName, metadata, …

    `boot` and `terminate` may take their time: the instance stays in PROVISIONING or TERMINATING until they return.
    When `boot` raises, the instance ends as TERMINATED.
    """

    def boot(self, instance: Fields) -> None: ...

    def console(self, instance: Fields) -> str:
        """What the machine wrote on its serial console up to now."""
        ...

    def terminate(self, instance: Fields) -> None: ...


class NoMachines:
    """The launcher where nothing has to run."""

    # As cloud-init writes it: https://docs.cloud-init.io, module "SSH".
    text = (
        "[   12.345678] cloud-init[812]: Cloud-init v. 23.1.2 running 'modules:final'\r\n"
        "ci-info: no authorized SSH keys fingerprints found for user ubuntu.\r\n"
        "<14>Nov 23 10:00:00 cloud-init: -----BEGIN SSH HOST KEY FINGERPRINTS-----\r\n"
        "<14>Nov 23 10:00:00 cloud-init: 256 SHA256:PretendedFingerprintOfTheMachinesEd25519Key root@vm (ED25519)\r\n"
        "<14>Nov 23 10:00:00 cloud-init: -----END SSH HOST KEY FINGERPRINTS-----\r\n"
        "-----BEGIN SSH HOST KEY KEYS-----\r\n"
        "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBAAKC2UrjC0r9E+bpbwpjioy2ZqCYDjTG"
        "rilnYFoVFPAFI/GT9gigvw5kkKYf0NYOZ7/0+qH57TxCy8Zpa/Y71U= root@vm\r\n"
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHvF4+asA2Mtu3JFK2B3FQj8TTLpGY+zYm77GeuB7mJP root@vm\r\n"
        "-----END SSH HOST KEY KEYS-----\r\n"
        "[   13.000001] cloud-init[812]: Cloud-init v. 23.1.2 finished\r\n"
    )

    def boot(self, instance: Fields) -> None: ...

    def console(self, instance: Fields) -> str:
        return self.text

    def terminate(self, instance: Fields) -> None: ...


@dataclass
class Faults:
    """What goes wrong next. Each is used up; empty, all is well."""

    out_of_capacity: dict[str, int] = field(default_factory=dict)  # availability domain -> how many launches and starts
    throttle: int = 0  # requests
    race: int = 0  # times that somebody else edits a security list just before it is written
    no_shape: list[str] = field(default_factory=list)  # availability domains without the shape; not used up
    lose_answer: list[str] = field(default_factory=list)  # operations that are done, but the connection breaks
    limit: list[str] = field(default_factory=list)  # operations that exceed a limit of the account
    slow: float = 0.0  # seconds before each answer; not used up


@dataclass
class Resource:
    kind: str
    fields: Fields
    etag: str
    steps: list[str]  # the states to come; "" where it vanishes
    waits: int = 0  # looks before the next step
    work: threading.Thread | None = None  # what has to end before the next step
    parts: list[Resource] = field(default_factory=list)  # what came and goes with an instance
    keeps_disk: bool = False  # of an instance, when it is terminated
    console: bytes = b""  # of a console history

    @property
    def state(self) -> str:
        return str(self.fields.get("lifecycleState", ""))

    def part(self, kind: str) -> Resource:
        return next(part for part in self.parts if part.kind == kind)


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]  # names in lower case
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    status: int
    content: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """A request that was understood."""

    operation: Operation
    ids: dict[str, str]
    query: dict[str, str]
    body: Fields
    if_match: str | None = None


class OracleApi:
    """One tenancy in one region. Any thread may call `answer`, and what is "for tests"; the lock is theirs to take."""

    def __init__(
        self,
        public_keys: dict[str, str],
        launcher: Launcher | None = None,
        addresses: Iterable[str] = (),
        now: Callable[[], float] = time.time,
    ) -> None:
        """`public_keys`: key id (tenancy/user/fingerprint) -> PEM. `addresses`: the public ones, given out in order."""
        self.public_keys = public_keys
        self.launcher = launcher or NoMachines()
        self.addresses = list(addresses) or [f"203.0.113.{host}" for host in range(10, 20)]
        self.now = now
        self.tenancy = next(iter(public_keys)).split("/")[0]
        self.compartments = {self.tenancy}
        self.closed: set[str] = set()  # those of them that the user is told of, and may not see into
        self.home_region = REGION
        self.domains = [f"Qxyz:{REGION.upper()}-AD-{number}" for number in (1, 2, 3)]
        self.looks = 1  # at a resource before its next state
        self.page_size = 3  # small, so that nobody gets by without paging
        self.faults = Faults()
        self.calls: list[tuple[str, int]] = []  # operation and status of each answer
        self.broken: list[str] = []  # tracebacks: faults of this stand-in, not of who uses it
        self.resources: dict[str, Resource] = {}
        self._lock = threading.RLock()
        self._tokens: dict[tuple[str, str], tuple[bytes, Answer, str]] = {}
        self._add_images()

    # For tests

    def all(self, kind: str) -> list[Fields]:
        """The resources of a kind ("Vcn", "Instance", …) that are not gone, as Oracle's JSON has them."""
        with self._lock:
            return [self._shown(one) for one in self._of(kind) if one.state != "TERMINATED"]

    def writes(self) -> list[str]:
        """The operations that changed something, in order."""
        return [name for name, status in self.calls if status < 300 and not name.startswith(("get_", "list_"))]

    def edit(self, ocid: str, **fields: Any) -> None:
        """Somebody else changes a resource, for example in the console. Names as in Oracle's JSON."""
        with self._lock:
            self.resources[ocid].fields |= fields
            self.resources[ocid].etag = secrets.token_hex(4)

    def lets_in(self, instance_id: str, address: str, port: int) -> bool:
        """Whether a TCP connection from that address to the instance's public one gets through the network."""
        with self._lock:
            instance = self.resources.get(instance_id)
            if instance is None or instance.state != "RUNNING":
                return False
            public = self._public_on(instance.part("PrivateIp").fields["id"])
            if public is None or public.state != "ASSIGNED":
                return False
            subnet = self.resources[instance.part("Vnic").fields["subnetId"]].fields
            source = ipaddress.ip_address(address)
            routes = self.resources[subnet["routeTableId"]].fields["routeRules"]
            back = [rule["networkEntityId"] for rule in routes if within(source, rule["destination"])]
            lists = [self.resources[ocid].fields["ingressSecurityRules"] for ocid in subnet["securityListIds"]]
            return any(self.resources[gateway].fields["isEnabled"] for gateway in back) and any(
                admits(rule, source, port) for rules in lists for rule in rules
            )

    # A request

    def answer(self, request: Request) -> Answer | None:
        """None: the answer is lost."""
        time.sleep(self.faults.slow)
        path = urlsplit(request.target).path
        if path.startswith("/standin/"):
            return self._control(request, path.removeprefix("/standin/"))
        with self._lock:
            name = f"{request.method} {path}"
            try:
                authenticate(request, self.public_keys, self.now())
                operation_, ids = route(request.method, path)
                name = operation_.name
                answer = self._once(self._understand(request, operation_, ids), request)
            except Refusal as refusal:
                body = {"code": refusal.code, "message": str(refusal)}
                answer = Answer(refusal.status, json.dumps(body).encode())
            except Exception:
                self.broken.append(traceback.format_exc())
                body = {"code": "StandInBroken", "message": self.broken[-1]}
                answer = Answer(500, json.dumps(body).encode())
            self.calls.append((name, answer.status))
            if name in self.faults.lose_answer and answer.status < 300:
                self.faults.lose_answer.remove(name)
                return None
            return answer

    def _control(self, request: Request, what: str) -> Answer:
        with self._lock:
            query = dict(parse_qsl(urlsplit(request.target).query))
            if what == "faults" and request.method == "POST":
                try:
                    self.faults = dataclasses.replace(self.faults, **json.loads(request.body))
                except (TypeError, ValueError) as error:
                    return Answer(400, json.dumps({"message": str(error)}).encode())
                return Answer(200, json.dumps(dataclasses.asdict(self.faults)).encode())
            if what == "resources":
                shown = [{"kind": one.kind, **self._shown(one)} for one in self.resources.values()]
                return Answer(200, json.dumps(shown, indent=1).encode())
            if what == "lets_in" and query.keys() == {"instance_id", "address", "port"}:
                lets_in = self.lets_in(query["instance_id"], query["address"], int(query["port"]))
                return Answer(200, json.dumps(lets_in).encode())
            return Answer(404, json.dumps({"message": f"no /standin/{what}"}).encode())

    def _understand(self, request: Request, operation_: Operation, ids: dict[str, str]) -> Call:
        query = dict(parse_qsl(urlsplit(request.target).query, keep_blank_values=True))
        if strange := query.keys() - operation_.query:
            raise wrong(f"{operation_.name} has no parameter {', '.join(sorted(strange))}")
        if missing := operation_.required - query.keys() - ids.keys():
            raise Refusal(400, "MissingParameter", f"{operation_.name} needs {', '.join(sorted(missing))}")
        body = {}
        if operation_.body:
            try:
                body = json.loads(request.body)
            except ValueError:
                raise Refusal(400, "CannotParseRequest", "the body is no JSON") from None
            for problem in problems(operation_.body, body, operation_.body):
                raise Refusal(400, "CannotParseRequest", problem)
        elif request.body:
            raise Refusal(400, "CannotParseRequest", f"{operation_.name} takes no body")
        # What Identity answers is of the whole tenancy.
        open_ = self.compartments - (set() if hasattr(oci.identity.IdentityClient, operation_.name) else self.closed)
        for given in (query, body):
            if "compartmentId" in given and given["compartmentId"] not in open_:
                raise unknown()
        return Call(operation_, ids, query, body, request.headers.get("if-match"))

    def _once(self, call: Call, request: Request) -> Answer:
        """Carry it out, unless its retry token shows that this was done."""
        if self.faults.throttle > 0:
            self.faults.throttle -= 1
            raise Refusal(429, "TooManyRequests", "Too many requests for the user")
        name = call.operation.name
        if name in self.faults.limit:
            self.faults.limit.remove(name)
            raise Refusal(400, "LimitExceeded", "The following service limits were exceeded: of this test.")
        token = request.headers.get("opc-retry-token")
        if token and (token, name) in self._tokens:
            body, answer, ocid = self._tokens[token, name]
            if body != request.body or ocid not in self.resources:
                raise Refusal(409, "InvalidatedRetryToken", "The retry token was used in an earlier request.")
            return answer
        result = ROUTES[name][1](self, call)
        answer = self._rendered(call, result)
        if token:
            ocid = result.fields["id"] if isinstance(result, Resource) else ""
            self._tokens[token, name] = (request.body, answer, ocid)
        return answer

    def _rendered(self, call: Call, result: Any) -> Answer:
        kind, headers = call.operation.answer, {}
        if result is None:
            return Answer(204, b"")
        if isinstance(result, Answer):
            return result
        if isinstance(result, list):
            if "page" in call.operation.query:
                start, size = paged(call.query, self.page_size)
                if start + size < len(result):
                    headers["opc-next-page"] = f"from-{start + size}"
                result = result[start : start + size]
            shown: Any = [self._shown(one) if isinstance(one, Resource) else one for one in result]
        else:
            headers["etag"] = result.etag
            shown = self._shown(result)
        assert kind
        ours = list(problems(kind, shown, kind))
        assert not ours, ours  # the stand-in itself is wrong
        return Answer(200, json.dumps(shown).encode(), headers)

    # Resources

    def _of(self, kind: str) -> list[Resource]:
        return [resource for resource in self.resources.values() if resource.kind == kind]

    def _shown(self, resource: Resource) -> Fields:
        fields = dict(resource.fields)
        if resource.kind == "Vnic":
            private = next(one for one in self._of("PrivateIp") if one.fields["vnicId"] == fields["id"])
            public = self._public_on(private.fields["id"])
            fields["publicIp"] = public.fields["ipAddress"] if public else None
        if resource.kind == "RouteTable":  # under both names, of which a request may have one
            rules = resource.fields["routeRules"]
            fields["routeRules"] = [{**rule, "cidrBlock": rule["destination"]} for rule in rules]
        return fields

    def _find(self, kind: str, ocid: str) -> Resource:
        resource = self.resources.get(ocid)
        if resource is None or resource.kind != kind:
            raise unknown()
        self._look(resource)
        if ocid not in self.resources:
            raise unknown()
        return resource

    def _use(self, kind: str, ocid: str) -> Resource:
        """One that another is to refer to."""
        resource = self._find(kind, ocid)
        if resource.state not in ("", "AVAILABLE", "RUNNING"):
            raise Refusal(409, "IncorrectState", f"{kind} {ocid} is {resource.state}")
        return resource

    def _look(self, resource: Resource) -> None:
        if not resource.steps or (resource.work and resource.work.is_alive()):
            return
        if resource.waits:
            resource.waits -= 1
        else:
            self._step(resource)

    def _step(self, resource: Resource) -> None:
        state = resource.steps.pop(0)
        resource.waits = self.looks
        if not state:
            del self.resources[resource.fields["id"]]
            return
        resource.fields["lifecycleState"] = state
        if resource.kind == "Instance" and state == "RUNNING":
            self._attach(resource)
        elif resource.kind == "Instance" and state == "TERMINATED":
            self._dismantle(resource)

    def _set_out(self, resource: Resource, *states: str) -> None:
        """It is in the first state now, and on its way through the others."""
        resource.fields["lifecycleState"] = states[0]
        resource.steps = list(states[1:])
        resource.waits = self.looks
        resource.etag = secrets.token_hex(4)

    def _add(self, kind: str, given: Fields, *states: str) -> Resource:
        """`given`: what the kind does not have is left out; what all have is filled in."""
        stamp = datetime.fromtimestamp(self.now(), UTC).isoformat(timespec="milliseconds")
        fields = {
            "id": new_id(kind),
            "displayName": f"{kind.lower()}{datetime.fromtimestamp(self.now(), UTC):%Y%m%d%H%M%S}",
            "freeformTags": {},
            "definedTags": {},
            "timeCreated": stamp,
            **given,
        }
        known = attributes(kind)
        resource = Resource(kind, {name: fields[name] for name in fields if name in known}, "", [])
        if states:
            self._set_out(resource, *states)
        self.resources[fields["id"]] = resource
        return resource

    def _matching(self, resource: Resource, if_match: str | None) -> None:
        if if_match not in (None, "*", resource.etag):
            raise Refusal(412, "NoEtagMatch", "The if-match header does not match the etag of the resource.")

    # Operations on any kind

    def get_any(self, call: Call) -> Resource:
        assert call.operation.answer
        return self._find(call.operation.answer, *call.ids.values())

    def list_any(self, call: Call) -> list[Resource]:
        assert call.operation.answer
        kind = call.operation.answer.removeprefix("list[").removesuffix("]")
        found = self._of(kind)
        for resource in found:
            self._look(resource)
        found = self._of(kind)
        for name, value in call.query.items():
            if name in attributes(kind) and (name, kind) != ("compartmentId", "Image"):  # Oracle's are in each one
                found = [one for one in found if str(one.fields.get(name, "")) == value]
        if kind == "Image" and "shape" in call.query:
            found = [one for one in found if fits(one.fields, call.query["shape"])]
        if call.query.get("sortBy") == "DISPLAYNAME":
            found.sort(key=lambda one: str(one.fields["displayName"]), reverse=call.query.get("sortOrder") == "DESC")
        elif "timeCreated" in attributes(kind):  # the default: the newest first
            newest_first = call.query.get("sortOrder") != "ASC"
            found = found[::-1] if newest_first else found  # for those of the same millisecond
            found.sort(key=lambda one: str(one.fields["timeCreated"]), reverse=newest_first)
        return found

    def create_any(self, call: Call) -> Resource:
        assert call.operation.answer
        kind = call.operation.answer
        fields = {**DEFAULTS.get(kind, {}), **call.body}
        self._check(kind, fields, "")
        return self._add(kind, fields, "PROVISIONING", "AVAILABLE")

    def update_any(self, call: Call) -> Resource:
        resource = self.get_any(call)
        if resource.state not in ("AVAILABLE", "RUNNING", "STOPPED", "ASSIGNED"):
            raise Refusal(409, "IncorrectState", f"{resource.kind} is {resource.state}")
        if resource.kind == "SecurityList" and self.faults.race > 0:
            self.faults.race -= 1
            theirs = {"protocol": "6", "source": "192.0.2.0/24", "description": f"made meanwhile, {self.faults.race}"}
            rules = [*resource.fields["ingressSecurityRules"], rule_as_stored(theirs, "source")]
            self.edit(resource.fields["id"], ingressSecurityRules=rules)
        self._matching(resource, call.if_match)
        fields = {**resource.fields, **call.body}
        self._check(resource.kind, fields, resource.fields["id"])
        resource.fields = {name: value for name, value in fields.items() if name in attributes(resource.kind)}
        resource.etag = secrets.token_hex(4)
        return resource

    def delete_any(self, call: Call) -> None:
        kind = ROUTES[call.operation.name.replace("delete_", "get_")][0].answer
        assert kind
        resource = self._find(kind, *call.ids.values())
        if resource.state == "TERMINATING":
            raise unknown()
        self._matching(resource, call.if_match)
        if users := list(self._users(resource)):
            for other in list(self.resources.values()):  # whoever waits by asking again is not to wait for ever
                self._look(other)
            raise conflict(f"The {kind} {resource.fields['id']} cannot be deleted: {', '.join(users)}")
        if kind == "Vcn":
            for name in VCN_DEFAULTS:
                del self.resources[resource.fields[name]]
        if "lifecycleState" in resource.fields and kind != "ConsoleHistory":
            self._set_out(resource, "TERMINATING", "")
        else:
            del self.resources[resource.fields["id"]]

    def _users(self, resource: Resource) -> Iterator[str]:
        """Why it cannot be deleted."""
        ocid = resource.fields["id"]
        vcn = self.resources[str(resource.fields.get("vcnId", ocid))].fields
        defaults = [vcn.get(name) for name in VCN_DEFAULTS]
        if ocid in defaults:
            yield "it is the default one of its VCN"
        for other in self.resources.values():
            fields = other.fields
            refers = {
                "Vcn": fields.get("vcnId") == ocid and fields["id"] not in defaults,
                "Subnet": other.kind == "Vnic" and fields.get("subnetId") == ocid,
                "RouteTable": other.kind == "Subnet" and fields["routeTableId"] == ocid,
                "SecurityList": other.kind == "Subnet" and ocid in fields["securityListIds"],
                "InternetGateway": any(rule["networkEntityId"] == ocid for rule in fields.get("routeRules", ())),
            }
            if refers.get(resource.kind):
                yield f"{other.kind} {fields['id']} refers to it"

    def _check(self, kind: str, fields: Fields, ocid: str) -> None:
        """Refuse what Oracle does, and fill in what it does. `ocid`: "" for a new resource."""
        if "vcnId" in fields and not ocid:
            self._use("Vcn", fields["vcnId"])
        if check := {
            "Vcn": self._check_vcn,
            "Subnet": self._check_subnet,
            "RouteTable": self._check_route_table,
            "SecurityList": self._check_security_list,
            "InternetGateway": self._check_gateway,
        }.get(kind):
            check(fields, ocid)

    # Network

    def create_vcn(self, call: Call) -> Resource:
        vcn = self.create_any(call)
        ocid, cidr = vcn.fields["id"], vcn.fields["cidrBlock"]
        common = {"compartmentId": vcn.fields["compartmentId"], "vcnId": ocid}
        named = f"for {vcn.fields['displayName']}"
        ingress: list[Fields] = [
            {"protocol": "6", "source": ANYWHERE, "tcpOptions": {"destinationPortRange": {"min": 22, "max": 22}}},
            {"protocol": "1", "source": ANYWHERE, "icmpOptions": {"type": 3, "code": 4}},
            {"protocol": "1", "source": cidr, "icmpOptions": {"type": 3}},
        ]
        rules = {
            "ingressSecurityRules": [rule_as_stored(rule, "source") for rule in ingress],
            "egressSecurityRules": [rule_as_stored({"protocol": "all", "destination": ANYWHERE}, "destination")],
        }
        options = [{"type": "DomainNameServer", "serverType": "VcnLocalPlusInternet"}]
        for kind, words, more in (
            ("RouteTable", "Default Route Table", {"routeRules": []}),
            ("SecurityList", "Default Security List", rules),
            ("DhcpOptions", "Default DHCP Options", {"options": options, "domainNameType": "CUSTOM_DOMAIN"}),
        ):
            default = self._add(kind, {**common, **more, "displayName": f"{words} {named}"}, "AVAILABLE")
            vcn.fields[f"default{kind}Id"] = default.fields["id"]
        return vcn

    def _check_vcn(self, fields: Fields, ocid: str) -> None:
        if ocid:
            return
        blocks = fields.get("cidrBlocks") or [fields.get("cidrBlock")]
        for number, block in enumerate(blocks):
            if not 16 <= network(block).prefixlen <= 30:
                raise wrong(f"the CIDR block {block} is not between /16 and /30")
            if any(network(block).overlaps(network(other)) for other in blocks[:number]):
                raise wrong(f"the CIDR block {block} overlaps with another")
        fields |= {"cidrBlocks": blocks, "cidrBlock": blocks[0]}
        check_label(fields)

    def _check_subnet(self, fields: Fields, ocid: str) -> None:
        vcn = self.resources[fields["vcnId"]].fields
        own = network(fields.get("cidrBlock"))
        if not any(own.subnet_of(network(block)) for block in vcn["cidrBlocks"]):
            raise wrong(f"the CIDR block {own} is not in the VCN's {', '.join(vcn['cidrBlocks'])}")
        for other in self._of("Subnet"):
            fields_ = other.fields
            if fields_["vcnId"] == vcn["id"] and fields_["id"] != ocid and own.overlaps(network(fields_["cidrBlock"])):
                raise wrong(f"the CIDR block {own} overlaps with {fields_['cidrBlock']} of {fields_['id']}")
        if fields.get("availabilityDomain") not in (None, *self.domains):
            raise wrong(f"there is no availability domain {fields['availabilityDomain']}")
        check_label(fields)
        fields["routeTableId"] = fields.get("routeTableId") or vcn["defaultRouteTableId"]
        fields["dhcpOptionsId"] = fields.get("dhcpOptionsId") or vcn["defaultDhcpOptionsId"]
        if fields.get("securityListIds") is None:
            fields["securityListIds"] = [vcn["defaultSecurityListId"]]
        if len(fields["securityListIds"]) > MOST_SECURITY_LISTS:
            raise Refusal(400, "LimitExceeded", f"a subnet has at most {MOST_SECURITY_LISTS} security lists")
        for kind, used in (
            ("RouteTable", fields["routeTableId"]),
            ("DhcpOptions", fields["dhcpOptionsId"]),
            *(("SecurityList", each) for each in fields["securityListIds"]),
        ):
            if self._use(kind, used).fields["vcnId"] != vcn["id"]:
                raise wrong(f"the {kind} {used} is of another VCN")
        fields["virtualRouterIp"] = str(own[1])
        fields["virtualRouterMac"] = "00:00:17:00:00:01"

    def _check_route_table(self, fields: Fields, ocid: str) -> None:
        for rule in fields["routeRules"]:
            old_name = rule.pop("cidrBlock", None)
            if old_name and rule.get("destination"):
                raise wrong("a route rule has either a cidrBlock, which is deprecated, or a destination")
            rule["destination"] = rule.get("destination") or old_name
            rule.setdefault("destinationType", "CIDR_BLOCK")
            rule.setdefault("routeType", "STATIC")
            check_cidr(rule["destination"])
            if self._use("InternetGateway", rule["networkEntityId"]).fields["vcnId"] != fields["vcnId"]:
                raise wrong("the rule's networkEntityId is of another VCN")
        destinations = [rule["destination"] for rule in fields["routeRules"]]
        if len(set(destinations)) < len(destinations):
            raise wrong("two rules have the same destination")

    def _check_security_list(self, fields: Fields, ocid: str) -> None:
        for name, end in (("ingressSecurityRules", "source"), ("egressSecurityRules", "destination")):
            if len(fields[name]) > MOST_RULES:
                raise Refusal(400, "LimitExceeded", f"a security list has at most {MOST_RULES} {name}")
            for rule in fields[name]:
                check_rule(rule, end)
            fields[name] = [rule_as_stored(rule, end) for rule in fields[name]]

    def _check_gateway(self, fields: Fields, ocid: str) -> None:
        if not ocid and any(one.fields["vcnId"] == fields["vcnId"] for one in self._of("InternetGateway")):
            raise Refusal(400, "LimitExceeded", "a VCN has at most one internet gateway")

    # Machines

    def _add_images(self) -> None:
        """The right one for Ubuntu 22.04 on A1, and those that could be taken by mistake."""
        for days, system, version, name in (
            (20, "Canonical Ubuntu", "22.04", "mine-22.04-aarch64"),  # made by the account's owner
            (90, "Canonical Ubuntu", "22.04", "Canonical-Ubuntu-22.04-aarch64-2026.06.30-0"),
            (30, "Canonical Ubuntu", "22.04", "Canonical-Ubuntu-22.04-aarch64-2026.09.30-0"),
            (29, "Canonical Ubuntu", "22.04", "Canonical-Ubuntu-22.04-2026.09.30-0"),
            (28, "Canonical Ubuntu", "22.04 Minimal aarch64", "Canonical-Ubuntu-22.04-Minimal-aarch64-2026.09.30-0"),
            (27, "Canonical Ubuntu", "24.04", "Canonical-Ubuntu-24.04-aarch64-2026.09.30-0"),
            (60, "Canonical Ubuntu", "22.04", "Canonical-Ubuntu-22.04-aarch64-2026.08.31-0"),
            (26, "Oracle Linux", "9", "Oracle-Linux-9.6-aarch64-2026.09.30-0"),
        ):
            made = datetime.fromtimestamp(self.now(), UTC) - timedelta(days=days)
            given = {
                "compartmentId": self.tenancy,
                "createImageAllowed": True,
                "displayName": name,
                "operatingSystem": system,
                "operatingSystemVersion": version,
                "sizeInMBs": 47694,
                "timeCreated": made.isoformat(timespec="milliseconds"),
                "baseImageId": new_id("image") if name.startswith("mine") else None,
            }
            self._add("Image", given, "AVAILABLE")

    def launch_instance(self, call: Call) -> Resource:
        body = call.body
        domain, shape = body["availabilityDomain"], body.get("shape", "")
        if domain not in self.domains:
            raise wrong(f"there is no availability domain {domain}")
        if shape not in SHAPES or domain in self.faults.no_shape:
            raise Refusal(404, "NotAuthorizedOrNotFound", f"shape {shape} not found")
        source = body.get("sourceDetails") or {}
        if source.get("sourceType") != "image" or not source.get("imageId"):
            raise wrong("sourceDetails is to name an image")
        image = self._use("Image", source["imageId"])
        if not fits(image.fields, shape):
            raise wrong(f"the shape {shape} is not valid for the image {image.fields['displayName']}")
        size = source.get("bootVolumeSizeInGBs", 47)
        if not 47 <= size <= 32768 or ("bootVolumeSizeInGBs" in source and size < 50):
            raise wrong(f"a boot volume of {size} GB: from 50 to 32,768 it may have")
        config = shape_config(shape, body.get("shapeConfig"))
        check_metadata(body.get("metadata") or {})
        wanted = body.get("createVnicDetails") or {}
        subnet = self._use("Subnet", wanted.get("subnetId") or body.get("subnetId") or "").fields
        if wanted.get("assignPublicIp") and subnet["prohibitPublicIpOnVnic"]:
            raise wrong("the subnet forbids public addresses")
        self._take_room(domain)
        given = {
            **body,
            "region": REGION,
            "faultDomain": "FAULT-DOMAIN-1",
            "imageId": image.fields["id"],
            "shapeConfig": config,
            "launchMode": "PARAVIRTUALIZED",
        }
        instance = self._add("Instance", given, "PROVISIONING", "RUNNING")
        self._add_parts(instance, subnet, wanted, size)
        self._work(instance, self.launcher.boot)
        return instance

    def _take_room(self, domain: str) -> None:
        if self.faults.out_of_capacity.get(domain, 0) > 0:
            self.faults.out_of_capacity[domain] -= 1
            raise Refusal(500, "InternalError", "Out of host capacity.")

    def _add_parts(self, instance: Resource, subnet: Fields, wanted: Fields, size: int) -> None:
        """What Oracle makes along with an instance: the disk, the network card, its address."""
        own = instance.fields
        common = {name: own[name] for name in ("availabilityDomain", "compartmentId")}
        name = wanted.get("displayName") or own["displayName"]
        volume = {**common, "displayName": f"{name} (Boot Volume)", "imageId": own["imageId"], "vpusPerGB": 10}
        disk = self._add("BootVolume", {**volume, "sizeInGBs": size, "sizeInMBs": size * 1024}, "AVAILABLE")
        attached = {**common, "instanceId": own["id"], "displayName": name}
        disk_attachment = self._add("BootVolumeAttachment", {**attached, "bootVolumeId": disk.fields["id"]}, "ATTACHED")
        taken = {one.fields["ipAddress"] for one in self._of("PrivateIp") if one.fields["subnetId"] == subnet["id"]}
        hosts = (str(host) for host in network(subnet["cidrBlock"]).hosts())
        next(hosts)  # the router's
        address = wanted.get("privateIp") or next(host for host in hosts if host not in taken)
        card = {**wanted, **common, "displayName": name, "subnetId": subnet["id"], "privateIp": address}
        card |= {"isPrimary": True, "macAddress": "02:00:17:00:00:02"}
        vnic = self._add("Vnic", card, "PROVISIONING")
        private = {**common, "displayName": name, "subnetId": subnet["id"], "vnicId": vnic.fields["id"]}
        private |= {"ipAddress": address, "isPrimary": True, "ipState": "ASSIGNED", "lifetime": "EPHEMERAL"}
        ip = self._add("PrivateIp", private)
        # Which card it is, Oracle tells only when the machine has it.
        attachment = self._add("VnicAttachment", {**attached, "subnetId": subnet["id"], "nicIndex": 0}, "ATTACHING")
        instance.parts = [disk, disk_attachment, vnic, ip, attachment]
        if wanted.get("assignPublicIp", not subnet["prohibitPublicIpOnVnic"]):
            given = {"compartmentId": own["compartmentId"], "lifetime": "EPHEMERAL"}
            self._add_public_ip({**given, "privateIpId": ip.fields["id"]})

    def _attach(self, instance: Resource) -> None:
        vnic, attachment = instance.part("Vnic"), instance.part("VnicAttachment")
        vnic.fields["lifecycleState"] = "AVAILABLE"
        attachment.fields |= {"lifecycleState": "ATTACHED", "vnicId": vnic.fields["id"]}

    def _dismantle(self, instance: Resource) -> None:
        public = self._public_on(instance.part("PrivateIp").fields["id"])
        if public and public.fields["lifetime"] == "EPHEMERAL":
            del self.resources[public.fields["id"]]
        elif public:
            self._assign(public, None)
        for part in instance.parts:
            if part.kind != "BootVolume" or not instance.keeps_disk:
                self.resources.pop(part.fields["id"], None)

    def _work(self, instance: Resource, what: Callable[[Fields], None]) -> None:
        """Have the launcher do something, while requests go on."""

        before = instance.work

        def work() -> None:
            try:
                if before:
                    before.join()
                what(dict(instance.fields))
            except Exception as error:  # whatever a launcher's may be
                print(f"the launcher failed: {error!r}", file=sys.stderr)
                instance.steps = ["TERMINATED"]

        instance.work = threading.Thread(target=work, daemon=True)
        instance.work.start()
        instance.work.join(0.05)  # one that has nothing to do is done, and the number of looks is always the same

    def update_instance(self, call: Call) -> Resource:
        instance = self.get_any(call)
        self._matching(instance, call.if_match)
        if instance.state not in ("RUNNING", "STOPPED"):
            raise Refusal(409, "IncorrectState", f"the instance is {instance.state}")
        body = dict(call.body)
        metadata = instance.fields.get("metadata") or {}
        for name in ("ssh_authorized_keys", "user_data"):
            if "metadata" in body and body["metadata"].get(name) != metadata.get(name):
                raise wrong(f"metadata.{name} cannot be changed after the launch")
        shape: str = body.get("shape") or instance.fields["shape"]
        config = {name: instance.fields["shapeConfig"][name] for name in ("ocpus", "memoryInGBs")}
        config |= body.pop("shapeConfig", {})
        body["shapeConfig"] = shape_config(shape, config)
        changed = body["shapeConfig"] != instance.fields["shapeConfig"]
        instance.fields |= {name: value for name, value in body.items() if name in attributes("Instance")}
        instance.etag = secrets.token_hex(4)
        if changed and instance.state == "RUNNING":
            self._set_out(instance, "STOPPING", "STARTING", "RUNNING")
        return instance

    def instance_action(self, call: Call) -> Resource:
        instance = self.get_any(call)
        self._matching(instance, call.if_match)
        action = call.query["action"]
        if action not in ACTIONS:
            raise wrong(f"this stand-in has no action {action}")
        needed, states = ACTIONS[action]
        if instance.state != needed:
            raise Refusal(409, "IncorrectState", f"{action} needs a {needed} instance, this one is {instance.state}")
        if action == "START":
            self._take_room(instance.fields["availabilityDomain"])
        self._set_out(instance, *states)
        return instance

    def terminate_instance(self, call: Call) -> None:
        instance = self._find("Instance", *call.ids.values())
        self._matching(instance, call.if_match)
        if instance.state in ("TERMINATING", "TERMINATED"):
            raise unknown()
        instance.keeps_disk = call.query.get("preserveBootVolume") == "true"
        self._set_out(instance, "TERMINATING", "TERMINATED")
        self._work(instance, self.launcher.terminate)

    # Public addresses

    def _public_on(self, private_ip_id: str) -> Resource | None:
        on_it = (one for one in self._of("PublicIp") if one.fields.get("privateIpId") == private_ip_id)
        return next((one for one in on_it if one.state != "TERMINATING"), None)

    def create_public_ip(self, call: Call) -> Resource:
        return self._add_public_ip(call.body)

    def _add_public_ip(self, given: Fields) -> Resource:
        private_ip_id = given.get("privateIpId")
        free = [one for one in self.addresses if all(one != each.fields["ipAddress"] for each in self._of("PublicIp"))]
        if not free:
            raise Refusal(400, "LimitExceeded", "The limit of public addresses is reached")
        fields = {**given, "ipAddress": free[0], "scope": "REGION", "privateIpId": None}
        if given["lifetime"] == "EPHEMERAL":
            if not private_ip_id:
                raise wrong("an ephemeral public IP needs a privateIpId")
            private = self._use("PrivateIp", private_ip_id).fields
            if private["compartmentId"] != given["compartmentId"]:
                raise wrong("an ephemeral public IP is in the compartment of its private IP")
            fields |= {"scope": "AVAILABILITY_DOMAIN", "availabilityDomain": private["availabilityDomain"]}
        if private_ip_id:
            self._check_assignable(private_ip_id)
        public = self._add("PublicIp", fields, "PROVISIONING", "AVAILABLE")
        if private_ip_id:
            self._assign(public, private_ip_id)
        return public

    def _check_assignable(self, private_ip_id: str) -> None:
        private = self._use("PrivateIp", private_ip_id).fields
        if self.resources[private["subnetId"]].fields["prohibitPublicIpOnVnic"]:
            raise wrong("the subnet forbids public addresses")
        if self._public_on(private_ip_id):
            raise conflict(f"The private IP {private_ip_id} already has a public IP assigned")

    def _assign(self, public: Resource, private_ip_id: str | None) -> None:
        entity = "PRIVATE_IP" if private_ip_id else None
        public.fields |= {"privateIpId": private_ip_id, "assignedEntityId": private_ip_id, "assignedEntityType": entity}
        self._set_out(public, *(("ASSIGNING", "ASSIGNED") if private_ip_id else ("UNASSIGNING", "AVAILABLE")))

    def update_public_ip(self, call: Call) -> Resource:
        public = self.get_any(call)
        self._matching(public, call.if_match)
        if public.state not in ("AVAILABLE", "ASSIGNED"):
            raise Refusal(409, "IncorrectState", f"the public IP is {public.state}")
        body = dict(call.body)
        target = body.pop("privateIpId", public.fields["privateIpId"]) or None
        if target != public.fields["privateIpId"]:
            if public.fields["lifetime"] == "EPHEMERAL":
                raise wrong("an ephemeral public IP can be neither moved nor unassigned, only deleted")
            if target:
                self._check_assignable(target)
            self._assign(public, target)
        public.fields |= body
        public.etag = secrets.token_hex(4)
        return public

    def get_public_ip_by_private_ip_id(self, call: Call) -> Resource:
        for public in self._of("PublicIp"):
            if call.body.items() <= public.fields.items() and public.state != "TERMINATING":
                return self._find("PublicIp", public.fields["id"])
        raise unknown()

    get_public_ip_by_ip_address = get_public_ip_by_private_ip_id

    def list_private_ips(self, call: Call) -> list[Resource]:
        if not {"subnetId", "vnicId"} & call.query.keys():
            raise wrong("one of subnetId and vnicId is needed")
        return self.list_any(call)

    def list_public_ips(self, call: Call) -> list[Resource]:
        if call.query["scope"] == "AVAILABILITY_DOMAIN" and "availabilityDomain" not in call.query:
            raise wrong("the scope AVAILABILITY_DOMAIN needs availabilityDomain")
        return self.list_any(call)

    # The console

    def capture_console_history(self, call: Call) -> Resource:
        instance = self._find("Instance", call.body["instanceId"])
        if instance.state in ("TERMINATING", "TERMINATED"):
            raise Refusal(409, "IncorrectState", f"the instance is {instance.state}")
        common = {name: instance.fields[name] for name in ("availabilityDomain", "compartmentId")}
        history = self._add("ConsoleHistory", {**common, **call.body}, "REQUESTED", "GETTING-HISTORY", "SUCCEEDED")
        history.console = self.launcher.console(dict(instance.fields)).encode()
        return history

    def get_console_history_content(self, call: Call) -> Answer:
        history = self._find("ConsoleHistory", *call.ids.values())
        if history.state != "SUCCEEDED":
            raise Refusal(409, "IncorrectState", f"the console history is {history.state}")
        start = int(call.query.get("offset", 0))
        piece = history.console[start : start + int(call.query.get("length", MOST_CONSOLE))]
        left = len(history.console) - start - len(piece)
        return Answer(200, piece, {"content-type": "text/plain", "opc-bytes-remaining": str(left)})

    # Identity

    def list_compartments(self, call: Call) -> list[Fields]:
        """All are right below the root, and active."""
        if call.query["compartmentId"] != self.tenancy:
            raise wrong("compartmentIdInSubtree is for the tenancy alone")
        common = {
            "compartmentId": self.tenancy,
            "description": "of this test",
            "lifecycleState": "ACTIVE",
            "timeCreated": datetime.fromtimestamp(self.now(), UTC).isoformat(timespec="milliseconds"),
            "freeformTags": {},
        }
        state = call.query.get("lifecycleState", "ACTIVE")
        below = sorted(self.compartments - {self.tenancy}) if state == "ACTIVE" else []
        return [{**common, "id": ocid, "name": ocid.rpartition(".")[2]} for ocid in below]

    def list_availability_domains(self, call: Call) -> list[Fields]:
        common = {"compartmentId": self.tenancy}
        return [{**common, "name": name, "id": f"ocid1.availabilitydomain.oc1..{name}"} for name in self.domains]

    def list_region_subscriptions(self, call: Call) -> list[Fields]:
        if call.ids["tenancyId"] != self.tenancy:
            raise unknown()
        return [
            {
                "regionKey": name.split("-")[1][:3].upper(),
                "regionName": name,
                "status": "READY",
                "isHomeRegion": name == self.home_region,
            }
            for name in sorted({self.home_region, REGION})
        ]


DEFAULTS: dict[str, Fields] = {"Subnet": {"prohibitInternetIngress": False, "prohibitPublicIpOnVnic": False}}

# Action -> the state it needs, and those that follow.
ACTIONS = {
    "START": ("STOPPED", ("STARTING", "RUNNING")),
    "STOP": ("RUNNING", ("STOPPING", "STOPPED")),
}

# Operations with a method of their own name in OracleApi have that; the others are alike for all kinds.
OPERATIONS = """
    create_vcn get_vcn list_vcns update_vcn delete_vcn get_dhcp_options list_dhcp_options
    create_subnet get_subnet list_subnets update_subnet delete_subnet
    create_route_table get_route_table list_route_tables update_route_table delete_route_table
    create_security_list get_security_list list_security_lists update_security_list delete_security_list
    create_internet_gateway get_internet_gateway list_internet_gateways update_internet_gateway delete_internet_gateway
    create_network_security_group get_network_security_group list_network_security_groups delete_network_security_group
    list_nat_gateways list_service_gateways list_local_peering_gateways list_drg_attachments
    get_vnic get_private_ip list_private_ips get_public_ip_by_private_ip_id get_public_ip_by_ip_address
    create_public_ip get_public_ip list_public_ips update_public_ip delete_public_ip
    launch_instance get_instance list_instances update_instance instance_action terminate_instance
    get_image list_images get_vnic_attachment list_vnic_attachments
    get_boot_volume list_boot_volumes list_volumes get_boot_volume_attachment list_boot_volume_attachments
    capture_console_history get_console_history list_console_histories get_console_history_content
    delete_console_history
    list_availability_domains list_region_subscriptions list_compartments
""".split()
ROUTES: dict[str, tuple[Operation, Callable[[OracleApi, Call], Any]]] = {
    name: (operation(name), getattr(OracleApi, name, None) or getattr(OracleApi, f"{name.partition('_')[0]}_any"))
    for name in OPERATIONS
}


def route(method: str, path: str) -> tuple[Operation, dict[str, str]]:
    """The operation, and what the path names."""
    for operation_, _ in ROUTES.values():
        match = operation_.path.fullmatch(path)
        if match and operation_.method == method:
            return operation_, match.groupdict()
    raise Refusal(404, "NotFound", f"this stand-in has no {method} {path}")


# What Oracle refuses


def authenticate(request: Request, public_keys: dict[str, str], now: float) -> None:
    """https://docs.oracle.com/iaas/Content/API/Concepts/signingrequests.htm"""

    def refused(why: str) -> Refusal:
        # Oracle does not tell the reason; whoever tries this out is helped by it.
        return Refusal(401, "NotAuthenticated", f"The required information to complete authentication is wrong: {why}")

    scheme, _, rest = request.headers.get("authorization", "").partition(" ")
    given = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    if scheme != "Signature" or given.get("version") != "1" or given.get("algorithm") != "rsa-sha256":
        raise refused("no signature of version 1 with rsa-sha256")
    if given.get("keyId") not in public_keys:
        raise refused(f"no such key, {given.get('keyId')}")
    signed = given.get("headers", "").split()
    demanded = {"date", "(request-target)", "host"}
    if request.method in ("POST", "PUT", "PATCH"):
        demanded |= {"content-length", "content-type", "x-content-sha256"}
        digest = base64.b64encode(hashlib.sha256(request.body).digest()).decode()
        if request.headers.get("x-content-sha256") != digest:
            raise refused("x-content-sha256 is not that of the body")
    if not demanded <= set(signed):
        raise refused(f"not signed: {', '.join(sorted(demanded - set(signed)))}")
    try:
        date = email.utils.parsedate_to_datetime(request.headers["date"]).timestamp()
    except (KeyError, ValueError):
        raise refused("no date") from None
    if abs(now - date) > FRESH:
        raise refused(f"the date is {abs(now - date):.0f} s away")
    values = {**request.headers, "(request-target)": f"{request.method.lower()} {request.target}"}
    text = "\n".join(f"{name}: {values.get(name, '')}" for name in signed).encode()
    key = serialization.load_pem_public_key(public_keys[given["keyId"]].encode())
    assert isinstance(key, rsa.RSAPublicKey)
    try:
        key.verify(base64.b64decode(given.get("signature", "")), text, padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, binascii.Error):
        raise refused("the signature does not fit") from None


def network(text: Any) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(text)
    except ValueError as error:
        raise wrong(f"no IPv4 CIDR block: {error}") from None


def check_cidr(text: str) -> None:
    """Of either version, for the rules."""
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise wrong(f"no CIDR block: {error}") from None


def within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, cidr: str) -> bool:
    return address in ipaddress.ip_network(cidr)


def check_label(fields: Fields) -> None:
    label = fields.get("dnsLabel")
    if label is not None and not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9]{0,14}", label):
        raise wrong(f"dnsLabel {label!r}: a letter, then letters and digits, 15 at most")


PROTOCOLS = {"all": None, "1": "icmpOptions", "6": "tcpOptions", "17": "udpOptions", "58": "icmpOptions"}


def check_rule(rule: Fields, end: str) -> None:
    """`end`: "source" or "destination"."""
    if rule["protocol"] not in PROTOCOLS:
        raise wrong(f"protocol {rule['protocol']!r}: a number as text, or all")
    if rule.get(f"{end}Type", "CIDR_BLOCK") == "CIDR_BLOCK":
        check_cidr(rule[end])
    for options in {"tcpOptions", "udpOptions", "icmpOptions"} - {PROTOCOLS[rule["protocol"]]}:
        if rule.get(options):
            raise wrong(f"{options} do not go with protocol {rule['protocol']}")
    for options in ("tcpOptions", "udpOptions"):
        for ports in (rule.get(options) or {}).values():
            if ports and not 1 <= ports["min"] <= ports["max"] <= 65535:
                raise wrong(f"the port range from {ports['min']} to {ports['max']}")
    if len(rule.get("description") or "") > 255:
        raise wrong("a description of more than 255 characters")


def rule_as_stored(rule: Fields, end: str) -> Fields:
    """Oracle fills in what the caller leaves to it."""
    return {"isStateless": False, f"{end}Type": "CIDR_BLOCK", **rule}


def admits(rule: Fields, source: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> bool:
    if rule["protocol"] not in ("6", "all") or not within(source, rule["source"]):
        return False
    ports = (rule.get("tcpOptions") or {}).get("destinationPortRange")
    return ports is None or ports["min"] <= port <= ports["max"]


def fits(image: Fields, shape: str) -> bool:
    """Whether an image is for the shape's processor."""
    return ("aarch64" in image["displayName"]) == (SHAPES.get(shape, ("", False))[0] == "aarch64")


def shape_config(shape: str, given: Fields | None) -> Fields:
    """As an instance has it."""
    if shape not in SHAPES or (SHAPES[shape][1] and not (given or {}).get("ocpus")):
        raise wrong(f"the shape {shape} needs a shapeConfig with ocpus")
    ocpus = (given or {}).get("ocpus", 1)
    memory = (given or {}).get("memoryInGBs", 6 * ocpus)
    if not (1 <= ocpus <= 80 and ocpus <= memory <= min(64 * ocpus, 512)):
        raise wrong(f"{ocpus} OCPU with {memory} GB: from 1 to 64 GB for each OCPU")
    return {"ocpus": float(ocpus), "memoryInGBs": float(memory), "vcpus": int(ocpus), "gpus": 0}


def check_metadata(metadata: dict[str, str]) -> None:
    if sum(len(name) + len(value) for name, value in metadata.items()) > 32000:
        raise wrong("metadata of more than 32,000 bytes")
    try:
        base64.b64decode(metadata.get("user_data", ""), validate=True)
    except binascii.Error:
        raise wrong("metadata.user_data is not in base64") from None


def paged(query: dict[str, str], most: int) -> tuple[int, int]:
    """Where a page begins, and its size."""
    limit, page = query.get("limit", str(most)), query.get("page", "from-0")
    if not limit.isdecimal() or not 1 <= int(limit) <= 1000 or not re.fullmatch(r"from-\d+", page):
        raise wrong(f"limit {limit} or page {page}")
    return int(page.removeprefix("from-")), min(int(limit), most)


# Over HTTP


class Handler(BaseHTTPRequestHandler):
    """The requests of one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.server.api.answer(Request(self.command, self.path, headers, body))
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in {
            "content-type": "application/json",
            "opc-request-id": secrets.token_hex(16),
            "content-length": str(len(answer.content)),
            **answer.headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        if self.server.verbose:
            super().log_message(format, *args)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], api: OracleApi, verbose: bool = False) -> None:
        super().__init__(address, Handler)
        self.api = api
        self.verbose = verbose
        self.endpoint = f"http://{address[0]}:{self.server_port}"


def make_account() -> tuple[dict[str, str], dict[str, str]]:
    """A new API key: the playbook's oracle_api_key, and the `public_keys` of an OracleApi that knows it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    digest = hashlib.md5(key.public_key().public_bytes(serialization.Encoding.DER, form)).hexdigest()  # noqa: S324
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    api_key = {
        "user": new_id("user").replace(REGION, ""),
        "fingerprint": ":".join(re.findall("..", digest)),
        "tenancy": new_id("tenancy").replace(REGION, ""),
        "region": REGION,
        "key_content": private.decode(),
    }
    key_id = "/".join(api_key[name] for name in ("tenancy", "user", "fingerprint"))
    return api_key, {key_id: key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, required=True, help="directory for the API key and oracle.yml")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8082)
    parser.add_argument("--launcher", help="module:factory of what boots machines; without it, nothing boots")
    parser.add_argument("--looks", type=int, default=1, help="at a resource before it is in its next state")
    parser.add_argument("--address", action="append", default=[], help="a public address to give out; repeatable")
    given = parser.parse_args()
    launcher = None
    if given.launcher:
        sys.path.insert(0, str(Path.cwd()))
        module, _, factory = given.launcher.partition(":")
        launcher = getattr(importlib.import_module(module), factory)()
    api_key, public_keys = make_account()
    api = OracleApi(public_keys, launcher, given.address)
    api.looks = given.looks
    server = Server((given.host, given.port), api, verbose=True)
    given.state.mkdir(parents=True, exist_ok=True)
    key_file = given.state / "api_key.pem"
    key_file.touch(0o600)
    key_file.write_text(api_key.pop("key_content"))
    variables = {"oracle_api_key": {**api_key, "key_file": str(key_file.resolve())}, "oracle_endpoint": server.endpoint}
    (given.state / "oracle.yml").write_text(json.dumps(variables, indent=2) + "\n")  # JSON is YAML
    print(f"{server.endpoint}, with the variables in {given.state / 'oracle.yml'}", file=sys.stderr)
    server.serve_forever()


if __name__ == "__main__":
    main()

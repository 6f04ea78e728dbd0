"""What the modules for Oracle Cloud share: the account, the tag of what we made, patience, and errors in plain words.

They run where Ansible does, over Oracle's own SDK, which is an extra of the requirements (`make oracle`).
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import time
from collections.abc import Callable, Collection
from typing import Any

from ansible.module_utils.basic import AnsibleModule

try:
    import oci
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from oci.core import BlockstorageClient, ComputeClient, VirtualNetworkClient
    from oci.exceptions import ConfigFileNotFound, InvalidConfig, InvalidPrivateKey, RequestException, ServiceError
    from oci.identity import IdentityClient

    HAS_OCI = True
except ImportError:
    HAS_OCI = False
NO_SDK = "Oracle's SDK is missing here. Mend: make oracle (0.6 GB), or pip install -r requirements-oracle.txt"

# A freeform tag on all that these modules make. Only what has it is changed or removed, whatever else has its name.
TAG = "personal-ai-employee"

# What a free account may have of A1 machines, since June 2026 (it was 4 and 24), and of boot and block volumes
# together, in its home region.
# https://docs.oracle.com/iaas/Content/FreeTier/freetier_topic-Always_Free_Resources.htm
FREE_OCPUS = 2
FREE_MEMORY_GB = 12
FREE_VOLUMES_GB = 200

ARGUMENTS: dict[str, Any] = {
    # As the console shows them when an API key is added, and as ~/.oci/config has them.
    "api_key": {
        "type": "dict",
        "required": True,
        "options": {
            "user": {"type": "str", "required": True},
            "fingerprint": {"type": "str", "required": True},
            "tenancy": {"type": "str", "required": True},
            "region": {"type": "str", "required": True},
            "key_file": {"type": "path"},
            "key_content": {"type": "str", "no_log": True},
            "pass_phrase": {"type": "str", "no_log": True},
        },
    },
    # Empty: Oracle's own for the region.
    "endpoint": {"type": "str", "default": ""},
    # Empty: the tenancy's root.
    "compartment_id": {"type": "str", "default": ""},
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}

# Where an answer says that it is Oracle's turn, asking again is right. "Out of host capacity" comes as a 500
# InternalError too, but lasts for hours: asking for it again is the caller's business.
AGAIN = {429: [], 409: ["IncorrectState", "LockConflict"], 500: ["InternalServerError"], 502: [], 503: [], 504: []}
PATIENCE = 600  # seconds, for one resource to become what was asked for
POLL = 5.0  # seconds
UNREACHED = 4  # tries, over some ten seconds
RACES = 5  # how often somebody else may be faster


class Problem(Exception):
    """What is wrong and how to mend it, in words for the operator."""


class Account:
    """The clients of Oracle's services for one API key. Raises Problem when the key cannot be used."""

    def __init__(self, api_key: dict[str, Any], endpoint: str = "", compartment_id: str = "") -> None:
        config = {name: value for name, value in api_key.items() if value}
        try:
            oci.config.validate_config(config)
            options = {
                # One for all: reading a key takes longer than asking Oracle something.
                "signer": oci.signer.Signer(
                    config["tenancy"],
                    config["user"],
                    config["fingerprint"],
                    config.get("key_file"),
                    config.get("pass_phrase"),
                    config.get("key_content"),
                ),
                "retry_strategy": patient(),
                "circuit_breaker_strategy": oci.circuit_breaker.NoCircuitBreakerStrategy(),
                **({"service_endpoint": endpoint} if endpoint else {}),
            }
            self.network = VirtualNetworkClient(config, **options)
            self.compute = ComputeClient(config, **options)
            self.volumes = BlockstorageClient(config, **options)
            self.identity = IdentityClient(config, **options)
        except (InvalidConfig, InvalidPrivateKey, ConfigFileNotFound, OSError, ValueError) as error:
            raise Problem(
                f"oracle_api_key cannot be used: {error}. Mend: copy user, fingerprint, tenancy and region from the"
                " console (My profile, API keys, View configuration file), and the path of the private key as key_file"
            ) from None
        self.tenancy = config["tenancy"]
        self.region = config["region"]
        self.compartment_id = compartment_id or self.tenancy


def patient() -> Any:
    """A strategy of the SDK for what passes by itself: throttling, a resource that is being changed, a lost connection.

    The SDK's own default is none at all, and its ready-made one asks a host that is full again and again.
    """
    strategy = oci.retry.RetryStrategyBuilder(
        max_attempts=8,
        total_elapsed_time_seconds=300,
        service_error_retry_config=AGAIN,
        service_error_retry_on_any_5xx=False,
    ).get_retry_strategy()
    strategy.checkers.add_checker(Reachable())
    return strategy


class Reachable:
    """A checker of the SDK's: without any connection a few tries are enough, for somebody waits to be told so."""

    def should_retry(self, exception: Exception, _: object = None, *, current_attempt: int, **__: object) -> bool:
        return isinstance(exception, ServiceError) or current_attempt < UNREACHED


def fingerprint(api_key: dict[str, Any]) -> str:
    """Of the private key, as Oracle's console shows it: MD5 over the public half in DER, in pairs of digits."""
    with_phrase = api_key.get("pass_phrase")
    if api_key.get("key_content"):
        private = oci.signer.load_private_key(api_key["key_content"], with_phrase)
    else:
        private = oci.signer.load_private_key_from_file(os.path.expanduser(api_key["key_file"]), with_phrase)
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.md5(public, usedforsecurity=False).digest().hex(":")


def all_pages(function: Callable[..., Any], *arguments: Any, **options: Any) -> list[Any]:
    """Everything that a list_… function of the SDK has, over all pages.

    The SDK's own paging tries each page eight times, each of them with the client's patience.
    """
    found: list[Any] = []
    while True:
        answer = function(*arguments, **options)
        found += answer.data
        if not answer.has_next_page:
            return found
        options["page"] = answer.next_page


def tags(name: str) -> dict[str, str]:
    """The freeform tags of what we make."""
    return {TAG: name}


def is_ours(resource: Any, name: str) -> bool:
    """Whether we made it under that name, and it is not gone or going."""
    mine = (resource.freeform_tags or {}).get(TAG) == name
    return mine and getattr(resource, "lifecycle_state", "") not in ("TERMINATING", "TERMINATED")


def wait_for(look: Callable[[], str], wanted: Collection[str], what: str, seconds: float = PATIENCE) -> str:
    """Look every POLL seconds until the state is one of `wanted`; returns it. Raises Problem after `seconds`."""
    deadline = time.monotonic() + seconds
    while (state := look()) not in wanted:
        if time.monotonic() > deadline:
            raise Problem(f"{what} is still {state} after {seconds:.0f} s. Mend: run this again; it goes on from there")
        time.sleep(POLL)
    return state


def edit(read: Callable[[], Any], decide: Callable[[Any], Any], write: Callable[..., Any]) -> Any:
    """Read, decide, and write if nobody changed it in between; or else read again and decide anew.

    `decide` gets what is there and returns the details to write, None for nothing to do; `write` gets them and
    if_match. Returns what is there in the end.
    """
    for left in reversed(range(RACES)):
        answer = read()
        details = decide(answer.data)
        if details is None:
            break
        try:
            answer = write(details, if_match=answer.headers["etag"])
            break
        except ServiceError as error:
            if error.status != 412 or not left:
                raise
    return answer.data


def cidr(text: str, setting: str) -> str:
    """Addresses as Oracle writes them; a single one is a network of its own. Raises Problem."""
    try:
        return str(ipaddress.ip_network(text.strip()))
    except ValueError as error:
        said = f"{setting}: {error}. Mend: "
    try:
        meant = ipaddress.ip_interface(text.strip())
    except ValueError:
        raise Problem(f"{said}write an address, or addresses like 203.0.113.0/24") from None
    raise Problem(f"{said}{meant.network} for all of these addresses, or {meant.ip} for that one")


def delete(call: Callable[..., Any], ocid: str, **options: Any) -> None:
    """Delete it. When it is gone already, as after an answer that was lost, that is as good."""
    try:
        call(ocid, **options)
    except ServiceError as error:
        if error.status != 404:
            raise


def gone(get: Callable[..., Any], ocid: str) -> Callable[[], str]:
    """A look for wait_for: the lifecycle state, TERMINATED too when Oracle does not know the resource any more."""

    def look() -> str:
        try:
            return str(get(ocid).data.lifecycle_state)
        except ServiceError as error:
            if error.status == 404:
                return "TERMINATED"
            raise

    return look


def explain(error: Any) -> str:
    """An error of Oracle's in plain words, with its mend. `error` is the SDK's ServiceError."""
    said = f"Oracle answered {error.status} {error.code} to {error.operation_name}: {str(error.message).rstrip('.')}"
    mends = {
        400: "correct the setting that it names",
        401: "the API key is not accepted: is its public half added under My profile, API keys; are user, tenancy and"
        " fingerprint those that the console shows; is key_file the private half of that"
        " very key; is this computer's clock right",
        404: "it is gone, or this user may not see it: correct oracle_compartment_id, or let the user's group manage"
        " virtual-network-family, instance-family and volume-family in it (Identity, Policies)",
        409: "something else uses it, or is changing it: remove that if you do not need it, and run this again",
        412: "somebody else changed it at the same moment: run this again",
        429: "Oracle asks for patience: run this again in some minutes",
    }
    by_code = {
        "LimitExceeded": "the account's limit is reached (Governance, Limits): remove what you do not need",
        "QuotaExceeded": "a quota of the compartment is reached (Governance, Quota policies)",
    }
    mend = by_code.get(error.code) or mends.get(error.status) or "run this again; it goes on from where it was"
    return f"{said}. Mend: {mend}. (opc-request-id {error.request_id})"


def run(module: AnsibleModule, work: Callable[[AnsibleModule, Account], dict[str, Any]]) -> None:
    """Do the module's work, which returns its result, and tell every error in words."""
    if not HAS_OCI:
        module.fail_json(msg=NO_SDK)
    given = module.params
    try:
        account = Account(given["api_key"], given["endpoint"], given["compartment_id"])
        result = work(module, account)
    except Problem as problem:
        module.fail_json(msg=f"{problem}.")
    except ServiceError as error:
        module.fail_json(msg=explain(error), status=error.status, code=error.code)
    except (RequestException, ConnectionError) as error:
        proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
        through = f" through the proxy {proxy.rpartition('@')[2]}" if proxy else ""
        module.fail_json(
            msg=f"Oracle cannot be reached{through}: {error}. Mend: is oracle_api_key.region right? Behind a company's"
            " proxy: export HTTPS_PROXY, and REQUESTS_CA_BUNDLE for a certificate of its own.",
            status=0,
        )
    else:
        module.exit_json(**result)

"""Joining a Ray cluster that runs already.

Ray itself tries for 20 s to 3 minutes where nothing answers or the token is wrong, writes to the terminal past every
logger, and says the same of both. So the cluster is asked first whether it lives: that takes milliseconds and its
answer has a code.
"""

from __future__ import annotations

import logging
import re
import time

from sayso.errors import UserError

_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
_ANSWER_SECONDS = 5.0
_TRIES = 3
_HOST_AND_PORT = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+):\d{1,5}")
_LET_IN = (
    "give the cluster's token as RAY_AUTH_TOKEN_PATH=FILE or RAY_AUTH_TOKEN "
    "(`ray get-auth-token` on the head prints it), with RAY_AUTH_MODE=token"
)


def join(address: str) -> None:
    """Connect this process to the cluster at `address` ("host:port", or "auto" for one on this machine).

    UserError, each with its own fix: no address, no answer, a wrong or missing token, another version of Ray,
    a machine that is no node of the cluster.
    """
    import ray

    address = _resolved(address)
    _ask(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except ConnectionError:
        raise UserError(
            f"engine.address: the Ray cluster at {address} answers, but this machine is no node of it; "
            "run the command on one of its nodes, or send it there with `sayso submit -- ...`"
        ) from None
    except RuntimeError as error:  # another Python than the cluster's
        raise UserError(f"engine.address: the Ray cluster at {address} cannot be joined: {_line(error)}") from None


def _resolved(address: str) -> str:
    if address == "auto":
        from ray._private.services import canonicalize_bootstrap_address

        try:
            return str(canonicalize_bootstrap_address("auto"))
        except ConnectionError:
            raise UserError(
                "engine.address: auto finds no Ray cluster on this machine; start one with `ray start --head`"
            ) from None
    if not _HOST_AND_PORT.fullmatch(address):
        raise UserError(
            f"engine.address: {address!r} is no address of a cluster's head; write host:port (6379 by default), "
            "or send the command to a job server with `sayso submit --address URL -- ...`"
        )
    return address


def _ask(address: str) -> None:
    """Ask the head whether it lives; UserError where it does not answer or turns us away."""
    import grpc
    import ray
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated.gcs_service_pb2 import CheckAliveReply  # type: ignore[attr-defined]
    from ray.exceptions import AuthenticationError

    for attempt in range(_TRIES):
        try:
            with init_grpc_channel(address) as channel:
                check = channel.unary_unary(_ALIVE, response_deserializer=CheckAliveReply.FromString)
                version = check(b"", timeout=_ANSWER_SECONDS).ray_version
        except AuthenticationError:
            raise UserError(
                f"engine.address: no token for the Ray cluster at {address}; {_LET_IN}; "
                "for a cluster without tokens set RAY_AUTH_MODE=disabled"
            ) from None
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                raise UserError(f"engine.address: the Ray cluster at {address} refuses our token; {_LET_IN}") from None
            if error.code() == grpc.StatusCode.UNAVAILABLE and attempt + 1 < _TRIES:
                time.sleep(1.0)
                continue
            raise UserError(
                f"engine.address: no Ray cluster answers at {address} ({error.code().name.lower()}); "
                "check that its head runs (`ray status`) and that its port, 6379 by default, is open from here"
            ) from None
        if version != ray.__version__:
            raise UserError(
                f"engine.address: the Ray cluster at {address} has Ray {version}, this machine {ray.__version__}; "
                "install the cluster's version here, or use `sayso submit -- ...`"
            )
        return


def _line(error: Exception) -> str:
    return " ".join(str(error).split())

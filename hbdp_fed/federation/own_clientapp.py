"""Flower's ``flwr-clientapp`` for a hospital that runs the code it has installed itself.

A SuperNode would run whatever app the server hands out, and an app that the server wrote could ignore every policy.
This program takes the place of ``flwr-clientapp`` on a hospital's PATH (``python -m scripts.deploy supernode`` sees to
it): it fetches messages and sends answers as that does, but neither unpacks nor loads the server's bundle.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.clientapp import ClientApp
from flwr.supernode.cli.flwr_clientapp import flwr_clientapp
from flwr.supernode.runtime import run_clientapp

from hbdp_fed.federation.hospital import app


def _nothing_unpacked(*_: Any, **__: Any) -> Path:
    """In place of unpacking the server's bundle."""
    return Path()


def _own_app(**_: Any) -> Callable[..., ClientApp]:
    """In place of loading the server's app."""
    return lambda *_: app


def main() -> None:
    """Deal with one message, as Flower's program of that name does."""
    for name, replacement in (("install_from_fab", _nothing_unpacked), ("get_load_client_app_fn", _own_app)):
        if not hasattr(run_clientapp, name):
            # Without the replacement, the server's code would run.
            raise SystemExit(f"this version of Flower loads apps in another way: it has no {name}")
        setattr(run_clientapp, name, replacement)
    flwr_clientapp()


if __name__ == "__main__":
    main()

"""Everything around the apps of a real federation: ``python -m scripts.deploy <command> --help``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hbdp_fed.errors import UserError
from hbdp_fed.federation.site_folder import read_policy, write_policy
from hbdp_fed.federation.superlink_client import SuperLinkError
from hbdp_fed.privacy.site_policy import SitePolicy
from scripts.deploy.keys import make_authority, make_server_certificate
from scripts.deploy.server import Server
from scripts.deploy.site import Hospital

DONE, FAILED, BAD_INPUT = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 it failed, 2 something given cannot be used."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["rehearse"]:
        from scripts.deploy.rehearse import rehearse  # loads what trains

        return rehearse(given[1:])
    parsed = _parser().parse_args(given)
    try:
        _COMMANDS[parsed.command](parsed)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except (SuperLinkError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    return DONE


def _certificates(given: argparse.Namespace) -> None:
    make_authority(given.folder / "authority")
    make_server_certificate(given.folder, given.folder / "authority", [*given.host, "127.0.0.1", "localhost"])
    print(f"for the hospitals: {given.folder / 'authority' / 'ca.pem'}")
    print(f"for nobody: {given.folder / 'authority' / 'ca.key'} and {given.folder / 'server.key'}")


def _superlink(given: argparse.Namespace) -> None:
    server = _server(given)
    server.start()
    print(f"the SuperLink listens on {server.host}:{server.port}; its log: {server.process.log_file}")


def _register(given: argparse.Namespace) -> None:
    print(f"{given.name} is node {_server(given).connection.register(given.name, given.public_key)}")


def _site(given: argparse.Namespace) -> None:
    hospital = Hospital(given.folder, given.name)
    hospital.site.path.mkdir(parents=True, exist_ok=True)
    print(f"for the server: {hospital.make_key()}")
    policy = hospital.site.policy_file
    if not policy.exists():
        write_policy(policy, SitePolicy(1e9, 100, (), (), secure_noise=True, may_leave=()))
    print(f"to be looked through: {policy}")
    print(f"to be put there: {hospital.site.records_file}")


def _references(given: argparse.Namespace) -> None:
    from scripts.deploy.references import write_references  # loads what trains

    site = Hospital(given.folder, "").site
    site.path.mkdir(parents=True, exist_ok=True)
    count = write_references(site, given.settings)
    print(f"{count} reference images: {site.references_file}")
    print(f"screening: true in {site.policy_file} has every model tried on them")


def _supernode(given: argparse.Namespace) -> None:
    hospital = Hospital(given.folder, given.name)
    policy, records = read_policy(hospital.site.policy_file), len(hospital.site.records())
    if policy.screening:
        hospital.site.references()
    hospital.start(given.superlink, given.root_certificates, own_port=given.own_port)
    print(f"{given.name} offers {records} records to {given.superlink}; its log: {hospital.process.log_file}")


def _stop(given: argparse.Namespace) -> None:
    Hospital(given.folder, "").stop()
    Server(given.folder).stop()


def _fetch(given: argparse.Namespace) -> None:
    from scripts.deploy.fetching import fetch

    print(fetch(given.source, given.target))


def _server(given: argparse.Namespace) -> Server:
    return Server(given.folder, host=getattr(given, "host", "127.0.0.1"), port=given.port)


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "certificates": _certificates,
    "superlink": _superlink,
    "register": _register,
    "site": _site,
    "references": _references,
    "supernode": _supernode,
    "stop": _stop,
    "fetch": _fetch,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.deploy", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser(
        "rehearse", help="a whole federation on this machine, held against its simulation (what make federation does)"
    )
    certificates = commands.add_parser("certificates", help="server: an authority, and a new certificate (rotates it)")
    certificates.add_argument("folder", type=Path)
    certificates.add_argument("--host", action="append", default=[], help="name or address that hospitals reach it by")
    superlink = commands.add_parser("superlink", help="server: start the SuperLink behind its gate")
    superlink.add_argument("folder", type=Path)
    superlink.add_argument("--host", default="0.0.0.0", help="address to listen on (default: all)")
    superlink.add_argument("--port", type=int, default=9092)
    register = commands.add_parser("register", help="server: let the holder of a key be a hospital")
    register.add_argument("folder", type=Path)
    register.add_argument("name")
    register.add_argument("public_key", type=Path)
    register.add_argument("--port", type=int, default=9092)
    site = commands.add_parser("site", help="hospital: a folder with a key and a policy that allows nothing yet")
    site.add_argument("folder", type=Path)
    site.add_argument("name")
    references = commands.add_parser(
        "references", help="hospital: images to try received models on, a data set's validation images"
    )
    references.add_argument("folder", type=Path)
    references.add_argument("settings", nargs="*", help="as for simulations.run, e.g. data=pneumoniamnist (phantom)")
    supernode = commands.add_parser("supernode", help="hospital: start the SuperNode")
    supernode.add_argument("folder", type=Path)
    supernode.add_argument("name")
    supernode.add_argument("--superlink", required=True, help="host:port of the server")
    supernode.add_argument("--root-certificates", type=Path, required=True, help="the server's ca.pem")
    supernode.add_argument("--own-port", type=int, default=9094, help="a port for this machine alone")
    stop = commands.add_parser("stop", help="stop what was started from a folder")
    stop.add_argument("folder", type=Path)
    fetch = commands.add_parser("fetch", help="copy a federation's folder from the server's machine")
    fetch.add_argument("source", help="path, or [user@]host:path")
    fetch.add_argument("target", type=Path)
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""``python -m worker keygen``: keys for signed messages, a folder for each who signs. See :mod:`worker.signing`."""

from __future__ import annotations

import datetime
import os
import re
from pathlib import Path
from typing import Iterable, Tuple

import click

from worker.errors import SettingsError
from worker.signing import CERTIFICATE, KEY, TRUSTED

_BITS = 2048
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.option("--days", type=click.IntRange(1, 36500), default=3650, show_default=True, help="How long they are good.")
def keygen(folder: Path, names: Tuple[str, ...], days: int) -> None:
    """Make a signing key for each NAME, such as worker and client, in FOLDER/NAME; all in FOLDER trust each other.

    A name that is there already keeps its key. Give each its own folder alone: POSE_SIGNING for workers and commands,
    PoseClient(…, signing=…) for clients.
    """
    for name in make_keys(folder, names, days):
        click.echo(f"{folder / name}")


def make_keys(folder: Path, names: Iterable[str], days: int = 3650) -> Tuple[str, ...]:
    """Make keys and have everybody in `folder` trust everybody; returns the names that are new.

    Raises:
        SettingsError: a name is none, or the folder cannot be written to.
    """
    wrong = next((name for name in names if not _NAME.fullmatch(name) or name.startswith(".")), None)
    if wrong is not None:
        raise SettingsError(f"{wrong!r} is no name of letters, digits, dots, dashes and underscores; choose another.")
    new = tuple(name for name in dict.fromkeys(names) if not (folder / name / KEY).exists())
    try:
        for name in new:
            _make(folder / name, name, days)
        certificates = {path.parent.name: path.read_bytes() for path in folder.glob(f"*/{CERTIFICATE}")}
        for name in certificates:
            trusted = folder / name / TRUSTED
            trusted.mkdir(exist_ok=True)
            for other, certificate in certificates.items():
                (trusted / f"{other}.pem").write_bytes(certificate)
    except OSError as exc:
        raise SettingsError(f"{folder} cannot be written to ({exc.strerror}); choose another folder.") from exc
    return new


def _make(folder: Path, name: str, days: int) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    begin = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=5)  # clocks differ
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    (folder / CERTIFICATE).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with open(os.open(folder / KEY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
        file.write(private)

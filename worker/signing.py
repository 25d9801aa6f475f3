"""Signed messages: Celery's ``auth`` serializer for what is sent, what comes back, and what the ledger keeps.

Whoever holds a key of the deployment, a worker or a sender, has one folder, made by ``python -m worker keygen``:
``key.pem`` (RSA), ``certificate.pem`` of it, and ``trusted/*.pem``, the certificates of all. With it in use, nothing
that is unsigned, or signed by somebody else, is done, sent again, or taken for a result.

Celery signs a body, not the headers beside it: who can write to the broker can have a signed job done once more, but
cannot make one up. One process has one key. Needs cryptography, which is loaded when it is used.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from worker.errors import InvalidRequest, SettingsError

if TYPE_CHECKING:
    from celery.security.serialization import SecureSerializer

#: The serializer's name and the content type of what it makes, which are Celery's.
SERIALIZER, CONTENT_TYPE = "auth", "application/data"
KEY, CERTIFICATE, TRUSTED = "key.pem", "certificate.pem", "trusted"
#: What is within a signature.
_WITHIN = "application/json"

#: The folder whose key makes this process's signed messages; kombu knows its serializers by process.
_folder: Optional[Path] = None


class Signer:
    """Signs text, and knows who else may.

    Args:
        folder: as POSE_SIGNING.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder).resolve()

    def seal(self, data: Any) -> str:
        """`data`, a text or what else JSON can hold, signed."""
        return str(_load(self._folder).serialize(data))

    def unseal(self, sealed: Any) -> Any:
        """What was sealed.

        Raises:
            SecurityError: nobody who is trusted has signed it; or another error of whatever makes no sense.
        """
        from celery.exceptions import SecurityError

        serializer = _load(self._folder)
        # Neither of these is covered by the signature, and they choose what reads the rest.
        fields = serializer._unpack(sealed)
        if (fields["content_type"], fields["content_encoding"]) != (_WITHIN, "utf-8"):
            raise SecurityError("only JSON is signed")
        return serializer.deserialize(sealed)

    def unseal_record(self, sealed: str) -> str:
        """What of a job's record was sealed.

        Raises:
            InvalidRequest: nobody who is trusted has signed it.
        """
        try:
            return str(self.unseal(sealed))
        except Exception as exc:
            raise InvalidRequest("The job's record is not signed by anybody who is trusted; submit it again.") from exc


def signer(folder: str) -> Optional[Signer]:
    """A signer with the key in `folder`; None where nothing is signed."""
    return Signer(folder) if folder else None


def serializer_name(folder: str) -> str:
    """What Celery is told to send and accept: a serializer that signs with the key in `folder`, or ``json``.

    Raises:
        SettingsError: the process signs with another folder already.
    """
    global _folder
    if not folder:
        return "json"
    wanted = Path(folder).resolve()
    if _folder not in (None, wanted):
        raise SettingsError(f"This process signs with {_folder} already; use another process for {wanted}.")
    if _folder is None:
        from kombu.serialization import registry

        signs, _folder = Signer(folder), wanted
        registry.register(SERIALIZER, signs.seal, signs.unseal, content_type=CONTENT_TYPE, content_encoding="utf-8")
    return SERIALIZER


def check(folder: str) -> None:
    """Raises SettingsError if there is to be a `folder`, and it has not everything that signing needs."""
    if not folder:
        return
    try:
        _load(Path(folder).resolve())
    except ImportError as exc:
        raise SettingsError("Signing needs cryptography; install it as requirements.txt has it.") from exc
    except Exception as exc:  # of many kinds, when a file is missing or is no key
        reason = getattr(exc, "strerror", None) or exc
        raise SettingsError(
            f"{folder} is no folder of a signing key ({reason}); make one with: python -m worker keygen"
        ) from exc


@lru_cache(maxsize=4)
def _load(folder: Path) -> SecureSerializer:
    from celery.security.certificate import Certificate, FSCertStore
    from celery.security.key import PrivateKey
    from celery.security.serialization import SecureSerializer

    key = PrivateKey((folder / KEY).read_text())
    certificate = Certificate((folder / CERTIFICATE).read_text())
    trusted = FSCertStore(str(folder / TRUSTED / "*.pem"))
    if certificate.get_id() not in {one.get_id() for one in trusted.itercerts()}:
        raise ValueError(f"{TRUSTED} has not its own certificate")
    return SecureSerializer(key, certificate, trusted)


__all__ = ["Signer", "check", "serializer_name", "signer"]

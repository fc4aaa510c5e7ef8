"""Keys of the tests: an elliptic curve's, as `openssl ecparam -genkey` makes them."""

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


def make_keys(folder, name="key", password=None, curve=None):
    """Paths of a new pair, PEM: private and public."""
    private = ec.generate_private_key(curve or ec.SECP256R1())
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    written = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    written[0].write_bytes(
        private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, locked)
    )
    written[1].write_bytes(
        private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return written

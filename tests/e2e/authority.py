"""A certificate authority for tests, by the openssl command: keys and certificates as files in a folder."""
import datetime
import pathlib
import subprocess

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

EC = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")
RSA = ("rsa:2048",)


def openssl(*words, **options):
    return subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, **options).stdout


class Authority:
    def __init__(self, folder, name="ca"):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cert, self.key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        openssl("req", "-x509", "-newkey", *EC, "-nodes", "-keyout", self.key, "-out", self.cert, "-subj", f"/CN={name}", "-days", 30,
                "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def issue(self, name, names="", kind=EC, days=20, more=""):
        """names: of subjectAltName, "DNS:a,IP:127.0.0.1"; more: lines of extensions; returns the paths of certificate and key."""
        cert, key, request = (self.folder / f"{name}.{end}" for end in ("pem", "key", "csr"))
        openssl("req", "-new", "-newkey", *kind, "-nodes", "-keyout", key, "-out", request, "-subj", f"/O=Tidegate/CN={name}")
        extensions = self.folder / f"{name}.ext"
        extensions.write_text((f"subjectAltName={names}\n" if names else "basicConstraints=CA:FALSE\n") + more)
        openssl("x509", "-req", "-in", request, "-CA", self.cert, "-CAkey", self.key, "-CAcreateserial", "-out", cert, "-days", days,
                "-extfile", extensions)
        return cert, key

    def issue_many(self, names):
        """A certificate for each name, all with one key; returns the paths of the certificates and of the key. Without a process for each."""
        key, issuer = ec.generate_private_key(ec.SECP256R1()), x509.load_pem_x509_certificate(self.cert.read_bytes())
        own = serialization.load_pem_private_key(self.key.read_bytes(), None)
        file = self.folder / "many.key"
        file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        now, certs = datetime.datetime.utcnow(), []
        for number, name in enumerate(names):
            made = x509.CertificateBuilder(issuer.subject, x509.Name([]), key.public_key(), x509.random_serial_number(),
                                           now - datetime.timedelta(days=1), now + datetime.timedelta(days=20))
            made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
            certs.append(self.folder / f"many{number}.pem")
            certs[-1].write_bytes(made.sign(own, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return certs, file

    def ocsp(self, name):
        """A response for the certificate of that name, as DER."""
        request, response = self.folder / f"{name}.ocspreq", self.folder / f"{name}.ocsp"
        index = self.folder / "index.txt"
        serial = openssl("x509", "-in", self.folder / f"{name}.pem", "-noout", "-serial").decode().strip().split("=")[1]
        index.write_text(f"V\t351231235959Z\t\t{serial}\tunknown\t/O=Tidegate/CN={name}\n")
        openssl("ocsp", "-issuer", self.cert, "-cert", self.folder / f"{name}.pem", "-reqout", request, "-no_nonce")
        openssl("ocsp", "-index", index, "-CA", self.cert, "-rsigner", self.cert, "-rkey", self.key, "-reqin", request, "-respout", response,
                "-ndays", 7)
        return response

    def crl(self, revoked=(), out=None, until="20991231235959Z", form="PEM"):
        """A list of revoked certificates, of those names; returns its path. `until`: its nextUpdate."""
        index, config, pem = self.folder / "crl-index.txt", self.folder / "crl.cnf", self.folder / "crl.pem"
        serials = [openssl("x509", "-in", self.folder / f"{name}.pem", "-noout", "-serial").decode().strip().split("=")[1] for name in revoked]
        index.write_text("".join(f"R\t351231235959Z\t200101000000Z\t{serial}\tunknown\t/O=Tidegate/CN=x\n" for serial in serials))
        config.write_text(f"[ca]\ndefault_ca = own\n[own]\ndatabase = {index}\ndefault_md = sha256\n")
        openssl("ca", "-gencrl", "-config", config, "-cert", self.cert, "-keyfile", self.key, "-out", pem, "-crl_lastupdate", "20200101000000Z",
                "-crl_nextupdate", until)
        out = pathlib.Path(out or self.folder / "out.crl")
        openssl("crl", "-in", pem, "-outform", form, "-out", out.with_suffix(".new"))
        out.with_suffix(".new").rename(out)
        return out

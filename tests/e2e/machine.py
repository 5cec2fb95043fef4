"""A machine with a kernel of its own, for what the kernel below the tests may not have: Debian's, emulated by qemu. The gateway, which is all
that runs there, is reached through ports of the loopback; its upstreams here are at 10.0.2.2."""
import gzip
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time

from gateway import RELEASE, ROOT, free_ports

IMAGE = ROOT / "build/kernel"  # Debian's, unpacked by `make build/kernel/done`
MODULES = ("crypto/gf128mul crypto/ghash-generic crypto/gcm crypto/ctr crypto/cryptd crypto/crypto_simd arch/x86/crypto/aesni-intel "
           "drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_pci_modern_dev drivers/virtio/virtio_pci_legacy_dev "
           "drivers/virtio/virtio_pci net/core/failover drivers/net/net_failover drivers/net/virtio_net").split()
SHELL = 9000
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /run
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
for module in @MODULES@; do insmod /modules/$module.ko; done
ip link set lo up; ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up; ip route add default via 10.0.2.2
cd /gateway
nc -ll -p 9000 -e /bin/sh &
/gateway/tidegate run --config gateway.lua --workers 1 --control /tmp/control.sock
sleep 1000
"""


def archive(files):
    """An initramfs (cpio, newc) of {path: bytes}; what is executable stays so by its name's folder."""
    out, folders = bytearray(), set()

    def add(name, mode, data=b""):
        fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        out.extend(b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0")
        out.extend(b"\0" * (-len(out) % 4) + data)
        out.extend(b"\0" * (-len(out) % 4))

    for path, data in files.items():
        for folder in reversed(pathlib.PurePath(path).parents):
            if str(folder) not in folders and str(folder) != ".":
                folders.add(str(folder))
                add(str(folder), 0o040755)
        add(path, 0o100755, data)
    add("TRAILER!!!", 0)
    return gzip.compress(bytes(out), 1)


def libraries(binary):
    for line in subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout.splitlines():
        for word in line.split():
            if word.startswith("/"):
                yield word


class Machine:
    """`modules`: further ones of the kernel, before the gateway starts. `ports`: those of the gateway; self.ports says where they are here."""

    def __init__(self, config, ports, files, modules=()):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="tidegate-machine-"))
        self.ports = dict(zip((*ports, SHELL), free_ports(len(ports) + 1)))
        all_modules = [*MODULES, *modules]
        kernel = next(IMAGE.glob("boot/vmlinuz*"), None)
        assert kernel, f"there is no kernel in {IMAGE}: make build/kernel/done"
        tree = next(IMAGE.glob("lib/modules/*/kernel"))
        content = {"init": INIT.replace("@MODULES@", " ".join(pathlib.Path(m).name for m in all_modules)).encode(),
                   "bin/busybox": pathlib.Path("/bin/busybox").read_bytes(), "gateway/tidegate": pathlib.Path(RELEASE).read_bytes(),
                   "gateway/gateway.lua": config.encode()}
        content |= {f"modules/{pathlib.Path(m).name}.ko": (tree / f"{m}.ko").read_bytes() for m in all_modules}
        content |= {name[1:]: pathlib.Path(name).read_bytes() for name in libraries(RELEASE)}
        content |= {f"gateway/{name}": data for name, data in files.items()}
        (self.folder / "initrd").write_bytes(archive(content))
        forwards = "".join(f",hostfwd=tcp:127.0.0.1:{here}-:{there}" for there, here in self.ports.items())
        with open(self.folder / "console", "wb") as console:
            self.process = subprocess.Popen(
                ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "512", "-nodefaults", "-display", "none",
                 "-serial", "stdio", "-no-reboot", "-kernel", str(kernel), "-initrd", str(self.folder / "initrd"),
                 "-append", "console=ttyS0 quiet panic=-1 mitigations=off", "-netdev", "user,id=net" + forwards,
                 "-device", "virtio-net-pci,netdev=net,romfile="], stdin=subprocess.DEVNULL, stdout=console, stderr=console)

    def __enter__(self):
        end = time.time() + 60
        while "is live" not in self.console():
            if time.time() > end or self.process.poll() is not None:
                console = self.console()
                self.__exit__()
                raise AssertionError(console)
            time.sleep(0.1)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder)

    def console(self):
        return (self.folder / "console").read_text(errors="replace")

    def shell(self, command):
        """What the command prints there."""
        with socket.create_connection(("127.0.0.1", self.ports[SHELL]), timeout=30) as s:
            s.sendall(f"{command} 2>&1; echo; echo DONE; exit\n".encode())
            printed = b""
            while b"\nDONE" not in printed:
                piece = s.recv(65536)
                assert piece, printed
                printed += piece
            return printed[:printed.index(b"\nDONE")].decode()

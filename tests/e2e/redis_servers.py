"""Real Redis servers for a test: started on free ports of this machine, ended by their own process ids."""
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

from gateway import free_port


def cluster_port():
    """The bus of a cluster listens 10,000 above."""
    while True:
        port = free_port()
        if port < 55000:
            return port


class Redis:
    """`with Redis("--requirepass", "x") as redis`; also without `with`: start, stop."""

    def __init__(self, *options, port=None, program="redis-server", config=None, tls=None):
        """`tls`: (ca, cert, key), files; then it speaks nothing else."""
        self.tls = tls
        self.port = port or free_port()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="tidegate-redis-"))
        self.program, self.options, self.config = program, options, config
        self.password = options[options.index("--requirepass") + 1] if "--requirepass" in options else None
        self.process = None

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        command = [self.program]
        if self.config is not None:
            path = self.folder / "redis.conf"
            if not path.exists():
                path.write_text(self.config)
            command.append(str(path))
        if self.tls:
            ca, cert, key = map(str, self.tls)
            command += ["--tls-port", str(self.port), "--tls-ca-cert-file", ca, "--tls-cert-file", cert, "--tls-key-file", key]
        command += ["--port", "0" if self.tls else str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "", "--enable-debug-command", "yes"]
        if self.program == "redis-sentinel":
            command = command[:-4]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen([*command, *self.options], stdout=log, stderr=log)
        end = time.monotonic() + 10
        while "PONG" not in (answer := self.cli("ping")) and "NOAUTH" not in answer:
            assert time.monotonic() < end and self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.02)
        return self

    def stop(self, number=signal.SIGKILL):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
            self.process.wait(10)

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def cli(self, *words, timeout=5):
        tls = ["--tls", "--cacert", self.tls[0], "--cert", self.tls[1], "--key", self.tls[2]] if self.tls else []
        secret = ["-a", self.password, "--no-auth-warning"] if self.password else []
        try:
            ran = subprocess.run(["redis-cli", "-p", str(self.port), *tls, *secret, *[str(word) for word in words]], capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            return ""
        return ran.stdout.strip() + ran.stderr.strip()

    def clients(self, name="tidegate-"):
        return [line for line in self.cli("client", "list").splitlines() if f" name={name}" in line]

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.folder)


class Cluster:
    """Masters, all slots among them, and so many replicas of each."""

    def __init__(self, masters=3, replicas=0):
        self.replicas = replicas
        self.servers = [Redis("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", port=cluster_port())
                        for _ in range(masters * (1 + replicas))]

    def __enter__(self):
        for server in self.servers:
            server.start()
        made = subprocess.run(["redis-cli", "--cluster", "create", *[server.address for server in self.servers],
                               "--cluster-replicas", str(self.replicas), "--cluster-yes"], capture_output=True, text=True, timeout=60)
        assert made.returncode == 0, made.stdout + made.stderr
        self.wait()
        return self

    def wait(self):
        end = time.monotonic() + 20
        while not all(self.is_whole(server) for server in self.servers if server.process.poll() is None):
            assert time.monotonic() < end
            time.sleep(0.05)

    @staticmethod
    def is_whole(server):
        if "cluster_state:ok" not in server.cli("cluster", "info"):
            return False
        replication = server.cli("info", "replication")
        return "role:master" in replication or "master_link_status:up" in replication

    def owner(self, slot):
        alive = next(server for server in self.servers if server.process.poll() is None)
        for line in alive.cli("cluster", "nodes").splitlines():
            fields = line.split()
            for part in fields[8:]:
                if part.startswith("["):
                    continue
                first, _, last = part.partition("-")
                if int(first) <= slot <= int(last or first):
                    return next(server for server in self.servers if fields[1].startswith(f"127.0.0.1:{server.port}@") and "master" in fields[2])
        raise AssertionError(f"nobody has slot {slot}")

    def id_of(self, server):
        return server.cli("cluster", "myid")

    def __exit__(self, *_):
        for server in self.servers:
            server.stop()
            shutil.rmtree(server.folder)


class Sentinels:
    """One master, one replica, and sentinels that notice within a second."""

    def __init__(self, sentinels=1):
        self.master = Redis()
        self.replica = Redis("--replicaof", "127.0.0.1", str(self.master.port), "--repl-diskless-sync-delay", "0")
        config = f"""
sentinel monitor main 127.0.0.1 {self.master.port} {(sentinels // 2) + 1}
sentinel down-after-milliseconds main 500
sentinel failover-timeout main 3000
sentinel parallel-syncs main 1
"""
        self.sentinels = [Redis(program="redis-sentinel", config=config) for _ in range(sentinels)]

    def __enter__(self):
        self.master.start()
        self.replica.start()
        end = time.monotonic() + 10
        while "master_link_status:up" not in self.replica.cli("info", "replication"):
            assert time.monotonic() < end
            time.sleep(0.05)
        for sentinel in self.sentinels:
            sentinel.start()
        while "slaves=1" not in self.sentinels[0].cli("info", "sentinel"):
            assert time.monotonic() < end
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        for server in (*self.sentinels, self.replica, self.master):
            server.stop()
            shutil.rmtree(server.folder)


def redis_word(name, server, more=""):
    return f'redis "{name}" {{ address = "{server.address}", {more} }}\n'


def environment(**values):
    return {**os.environ, **values}

"""Backends that die, hang, slow down, refuse and count: real servers in threads of the test."""
import socket
import struct
import threading
import time


class Backend:
    """Answers each request on its connections as `self.behave` says; all of it may change while it runs."""

    def __init__(self, name="", port=0, path=None):
        self.name, self.status, self.delay, self.headers = name, 200, 0.0, ""
        self.fail_every = 0  # each n-th request is answered with `failure`
        self.failure = "503"  # or "reset", "hang"
        self.requests, self.heads, self.in_flight, self.most, self.accepted = 0, [], 0, 0, 0
        self.lock = threading.Lock()
        self.socket = socket.socket(socket.AF_UNIX) if path else socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(path or ("127.0.0.1", port))
        self.port = None if path else self.socket.getsockname()[1]
        self.socket.listen(512)
        self.open, self.stopped = set(), False
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """As a process that is killed: nobody listens, and all connections break."""
        self.stopped = True
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()
        for client in list(self.open):
            self.reset(client)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def reset(self, client):
        try:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        except OSError:
            pass

    def accept(self):
        while not self.stopped:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            if self.port:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.open.add(client)
            self.accepted += 1
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        rest = b""
        try:
            while not self.stopped:
                while b"\r\n\r\n" not in rest:
                    chunk = client.recv(65536)
                    if not chunk:
                        return
                    rest += chunk
                head, rest = rest.split(b"\r\n\r\n", 1)
                length = 0
                for line in head.split(b"\r\n"):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                while len(rest) < length:
                    rest += client.recv(65536)
                body, rest = rest[:length], rest[length:]
                if not self.answer(client, head, body):
                    return
        except OSError:
            pass
        finally:
            self.open.discard(client)
            client.close()

    def answer(self, client, head, body):
        with self.lock:
            self.requests += 1
            self.heads.append(head.decode() + "\r\n\r\n" + body.decode(errors="replace"))
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
            fails = self.fail_every and self.requests % self.fail_every == 0
        over = False
        try:
            if self.delay:
                time.sleep(self.delay)
            status = self.status
            if fails:
                if self.failure == "reset":
                    self.reset(client)
                    return False
                if self.failure == "hang":
                    time.sleep(5)
                    return False
                status = int(self.failure)
            text = self.name.encode()
            with self.lock:  # before the answer: whoever has it may send the next request at once
                self.in_flight -= 1
                over = True
            client.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: {len(text)}\r\n{self.headers}\r\n".encode() + text)
            return True
        finally:
            with self.lock:
                self.in_flight -= 0 if over else 1

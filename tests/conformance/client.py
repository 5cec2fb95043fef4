"""A client that reads bytes: it sees framing, ends and cuts that a library would smooth over."""
import re
import socket
import struct
import time

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class Cut(Exception):
    """The connection ended before the answer did. `got` is what had come, `how` is "eof" or "reset"."""

    def __init__(self, got, how):
        super().__init__(f"{how} after {got!r}")
        self.got, self.how = got, how


class Answer:
    def __init__(self, head):
        line, *fields = head.split(b"\r\n")
        found = re.fullmatch(rb"HTTP/1\.1 ([1-5]\d\d) ([\t -~\x80-\xff]*)", line)
        assert found, f"malformed status line {line!r}"
        self.head, self.status, self.body = head, int(found[1]), b""
        self.fields = []
        for field in fields:
            name, colon, value = field.partition(b":")
            assert colon and TOKEN.fullmatch(name) and not re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value), f"malformed field {field!r}"
            self.fields.append((name.lower().decode(), value.strip(b" \t").decode("latin-1")))

    def field(self, name):
        """Its value, or None; a field that stands there twice is an error of the gateway."""
        values = [value for key, value in self.fields if key == name.lower()]
        assert len(values) < 2, f"{name} {len(values)} times: {self.head!r}"
        return values[0] if values else None


class Client:
    def __init__(self, port, seconds=5):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.data = b""
        self.hints = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, *pieces, pause=0.0):
        for piece in pieces:
            self.socket.sendall(piece)
            time.sleep(pause)

    def fill(self):
        try:
            chunk = self.socket.recv(65536)
        except ConnectionResetError:
            raise Cut(self.data, "reset") from None
        if not chunk:
            raise Cut(self.data, "eof")
        self.data += chunk

    def until(self, mark):
        while mark not in self.data:
            self.fill()
        taken, _, self.data = self.data.partition(mark)
        return taken

    def take(self, size):
        while len(self.data) < size:
            self.fill()
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def answer(self, method="GET"):
        """The next answer, whole; Cut when the connection ends before it does. Early hints before it go to `hints`."""
        answer = Answer(self.until(b"\r\n\r\n"))
        while answer.status == 103:
            self.hints.append(answer)
            answer = Answer(self.until(b"\r\n\r\n"))
        length, coding = answer.field("Content-Length"), answer.field("Transfer-Encoding")
        assert not (length and coding), answer.head
        if method == "HEAD" or answer.status in (204, 304) or answer.status < 200:
            return answer
        if coding:
            assert coding == "chunked", answer.head
            while size := int(self.until(b"\r\n"), 16):
                answer.body += self.take(size)
                assert self.take(2) == b"\r\n", "a chunk that is longer than its size"
            assert self.take(2) == b"\r\n", "trailers that nobody asked for"
        elif length is not None:
            answer.body = self.take(int(length))
        else:
            answer.body, how = self.rest()
            assert how == "eof", how
        return answer

    def rest(self):
        """All that comes until the end, and how it ends: "eof", "reset", or "open" when nothing came for the socket's timeout."""
        try:
            while True:
                self.fill()
        except Cut as cut:
            how = cut.how
        except TimeoutError:
            how = "open"
        data, self.data = self.data, b""
        return data, how

    def is_open(self):
        """Whether nothing came and nobody closed, for a tenth of a second."""
        self.socket.settimeout(0.1)
        return self.rest() == (b"", "open")

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

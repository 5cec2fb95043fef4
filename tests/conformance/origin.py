"""A scripted origin: answers with the bytes that it is told, and remembers every byte that it got, by connection."""
import array
import fcntl
import socket
import struct
import termios
import threading
import time

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Connection:
    def __init__(self, sock, number):
        self.socket = sock
        self.number = number
        self.unanswered = b""  # bytes that are no whole request yet
        self.requests = 0
        self.ended = threading.Event()

    def is_quiet(self):
        if self.ended.is_set():
            return True
        try:
            waiting = array.array("i", [0])
            fcntl.ioctl(self.socket.fileno(), termios.FIONREAD, waiting)
            return waiting[0] == 0 and not self.unanswered
        except (OSError, ValueError):
            return False

    def reset(self):
        """Ends the connection with a RST, as a crashed origin does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Origin:
    """`answer` is bytes, a list of bytes (one a request, in order) or a function of (connection, request) that returns bytes or None to close."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.connections = []
        self.lock = threading.Lock()
        self.clear(OK, False)
        threading.Thread(target=self.accept, daemon=True).start()

    def clear(self, answer, close_after):
        with self.lock:
            self.answer, self.close_after = answer, close_after
            self.received = []  # whole requests
            self.used = []      # the number of the connection that each came on
            self.seen = b""     # every byte, whole request or not

    def reset(self, answer=OK, close_after=False):
        """Forgets what came, once nothing of an earlier test can come any more."""
        self.settle()
        self.clear(answer, close_after)

    def settle(self, seconds=5):
        """Waits until no connection holds a request that is not whole: the gateway has ended those that it cut."""
        self.wait_for(lambda: all(c.is_quiet() for c in list(self.connections)), "a cut request's connection ends", seconds)

    @staticmethod
    def wait_for(condition, what, seconds=5):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"the origin waited in vain: {what}"
            time.sleep(0.002)

    def accept(self):
        while True:
            try:
                sock = self.listener.accept()[0]
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(sock, len(self.connections))
            self.connections.append(connection)
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        try:
            while chunk := connection.socket.recv(65536):
                with self.lock:
                    self.seen += chunk
                    connection.unanswered += chunk
                while (end := end_of_request(connection.unanswered)) is not None:
                    if not self.reply(connection, end):
                        return
        except (OSError, ValueError):
            pass
        finally:
            connection.socket.close()
            connection.unanswered = b""
            connection.ended.set()

    def reply(self, connection, end):
        with self.lock:
            request = connection.unanswered[:end]
            answer = self.answer
            if isinstance(answer, list):
                answer = answer[len(self.received)]
            self.received.append(request)
            self.used.append(connection.number)
            connection.unanswered = connection.unanswered[end:]
        connection.requests += 1
        if callable(answer):
            answer = answer(connection, request)
            if answer is None:
                return False
        connection.socket.sendall(answer)
        return not self.close_after

    def close(self):
        self.listener.close()
        for connection in self.connections:
            try:
                connection.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def end_of_request(data):
    """Where the first request in `data` ends; None when it is not whole. Only what the gateway may write is understood."""
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return None
    for line in data[:head].lower().split(b"\r\n")[1:]:
        if line.startswith(b"content-length:"):
            end = head + 4 + int(line.split(b":")[1])
            return end if len(data) >= end else None
        if line.startswith(b"transfer-encoding:"):
            return end_of_chunks(data, head + 4)
    return head + 4


def end_of_chunks(data, at):
    while True:
        line = data.find(b"\r\n", at)
        if line < 0:
            return None
        size = int(data[at:line], 16)
        at = line + 2 + size + 2
        if len(data) < at:
            return None
        if size == 0:
            return at


def body_of(request):
    """The body of a whole request, decoded."""
    head, _, rest = request.partition(b"\r\n\r\n")
    if b"\r\ntransfer-encoding:" not in head.lower():
        return rest
    body = b""
    while True:
        line, _, rest = rest.partition(b"\r\n")
        size = int(line, 16)
        if size == 0:
            return body
        body, rest = body + rest[:size], rest[size + 2:]

"""A name server that answers as it is told: `answer(question, query) -> bytes, a list of them, or None` for silence."""
import socket
import struct
import threading

A, CNAME, AAAA, SRV = 1, 5, 28, 33
NOERROR, SERVFAIL, NXDOMAIN = 0, 2, 3
TRUNCATED = 0x0200


class Question:
    def __init__(self, query):
        self.id, = struct.unpack_from(">H", query)
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]])
            at += 1 + query[at]
        self.name = b".".join(labels).decode()
        self.kind, = struct.unpack_from(">H", query, at + 1)
        self.section = query[12:at + 5]


def encode(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def record(kind, data, ttl=1, name=b"\xc0\x0c"):
    return name + struct.pack(">HHIH", kind, 1, ttl, len(data)) + data


def address(text, ttl=1, name=b"\xc0\x0c"):
    return record(A, socket.inet_aton(text), ttl, name)


def message(question, records=(), code=NOERROR, flags=0, id=None, section=None):
    head = struct.pack(">HHHHHH", question.id if id is None else id, 0x8180 | flags | code, 1, len(records), 0, 0)
    return head + (question.section if section is None else section) + b"".join(records)


class NameServer:
    """UDP and TCP on one port. `asked` lists the names of all A questions."""

    def __init__(self, answer, answer_tcp=None):
        self.answer, self.answer_tcp, self.asked = answer, answer_tcp or answer, []
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.port = self.tcp.getsockname()[1]
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", self.port))
        for loop in (self.serve_udp, self.serve_tcp):
            threading.Thread(target=loop, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for each in (self.udp, self.tcp):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            each.close()

    def reply(self, how, query):
        question = Question(query)
        if question.kind == A:
            self.asked.append(question.name)
        found = how(question, query)
        return found if isinstance(found, list) else [] if found is None else [found]

    def serve_udp(self):
        while True:
            try:
                query, client = self.udp.recvfrom(4096)
                if not query:  # as after a shutdown
                    return
            except OSError:
                return
            for data in self.reply(self.answer, query):
                sender = self.udp
                if isinstance(data, tuple):  # from another port
                    data, sender = data[0], socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sender.sendto(data, client)

    def serve_tcp(self):
        while True:
            try:
                connection = self.tcp.accept()[0]
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    while size := connection.recv(2):
                        query = connection.recv(struct.unpack(">H", size)[0])
                        for data in self.reply(self.answer_tcp, query):
                            connection.sendall(struct.pack(">H", len(data)) + data)
                except OSError:
                    pass

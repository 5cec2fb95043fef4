"""A scripted origin: answers with the bytes that it is given, and remembers the bytes that it got."""
import socket
import threading


class Origin:
    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        self.close_after = False
        self.received = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        data = b""
        connection.settimeout(20)
        try:
            while chunk := connection.recv(65536):
                data += chunk
                while (end := self.end_of_request(data)) is not None:
                    self.received.append(data[:end])
                    data = data[end:]
                    connection.sendall(self.answer)
                    if self.close_after:
                        return
        except OSError:
            pass
        finally:
            connection.close()

    @staticmethod
    def end_of_request(data):
        head = data.find(b"\r\n\r\n")
        if head < 0:
            return None
        lines = data[:head].lower().split(b"\r\n")
        for line in lines:
            if line.startswith(b"content-length:"):
                end = head + 4 + int(line.split(b":")[1])
                return end if len(data) >= end else None
            if line.startswith(b"transfer-encoding:"):
                end = data.find(b"0\r\n\r\n", head)
                return end + 5 if end >= 0 else None
        return head + 4

    def reset(self, answer=None, close_after=False):
        self.received.clear()
        self.answer = answer or b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        self.close_after = close_after

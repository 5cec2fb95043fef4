"""Prints how h11 reads each input of stdin, as our.c prints it. Not named h11.py: it would import itself."""
import json
import sys

import h11

# Limits on size are not compared: each program has its own.
HEAD_MAX = 1 << 20


def answer(connection):
    """The cycle ends only when the server has answered. 404: it neither tunnels nor upgrades."""
    connection.send(h11.Response(status_code=404, headers=[("Content-Length", "0")]))
    connection.send(h11.EndOfMessage())


def read(data):
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MAX)
    requests = []
    state = "idle"
    if data:  # nothing would mean that the client has closed
        connection.receive_data(data)
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            if state == "body":
                requests.pop()
            return {"requests": requests, "state": "refused", "why": str(error)}
        if event is h11.NEED_DATA:
            if state == "idle" and connection.trailing_data[0]:
                state = "head"
            return {"requests": requests, "state": state, "why": ""}
        if isinstance(event, h11.Request):
            fields = [{"name": name.hex(), "value": value.hex()} for name, value in event.headers]
            requests.append({"method": event.method.hex(), "target": event.target.hex(), "minor": int(event.http_version[2:]),
                             "major": int(event.http_version[:1]), "fields": fields, "body": "", "end": 0})
            state = "body"
        elif isinstance(event, h11.Data):
            requests[-1]["body"] += bytes(event.data).hex()
        elif isinstance(event, h11.EndOfMessage):
            requests[-1]["end"] = len(data) - len(connection.trailing_data[0])
            answer(connection)
            requests[-1]["keep"] = connection.our_state is not h11.MUST_CLOSE
            if not requests[-1]["keep"]:
                return {"requests": requests, "state": "closed", "why": ""}
            connection.start_next_cycle()
            state = "idle"
        else:
            raise AssertionError(f"unexpected event {event!r}")


def main():
    everything = sys.stdin.buffer.read()
    at = 0
    while at < len(everything):
        length = int.from_bytes(everything[at:at + 4], "big")
        print(json.dumps(read(everything[at + 4:at + 4 + length])))
        at += 4 + length


if __name__ == "__main__":
    main()

"""Where two readings of one input part. A reading is what our.c and the peers print, with bytes instead of hexadecimal."""
import json
from collections import namedtuple

# kind    stricter     we refuse what the peer takes, or still reads
#         laxer        we take, or still read, what the peer refuses
#         framing      the bytes of a body or the end of a message are not the same
#         persistence  one goes on with the connection, the other ends it
#         reading      a part of the head is not the same
# what    stricter: why we refuse; laxer: our state; framing, persistence: both states, or the part; reading: the part
# request where they part, as we read it (None when we have none), `other` the same of the peer; `before` is the one
#         before it, and `rest` are the bytes behind that one
Difference = namedtuple("Difference", "kind what peer name data request other before rest why")


def parse(line):
    reading = json.loads(line)
    for request in reading["requests"]:
        for key in ("method", "target", "body"):
            request[key] = bytes.fromhex(request[key])
        # Names are compared without case, as they are meant; h11 keeps none.
        request["fields"] = [(bytes.fromhex(f["name"]).lower(), bytes.fromhex(f["value"])) for f in request["fields"]]
        request["version"] = (request.get("major", 1), request["minor"])
    return reading


def whole(reading):
    """The requests of which every byte has come."""
    return reading["requests"][:-1] if reading["state"] == "body" else reading["requests"]


def compare(peer, name, data, ours, theirs):
    """The differences of one input, in the order of its bytes; nothing is compared behind one that shifts what follows."""
    found = []
    before = None

    def differ(kind, what, request=None, other=None):
        found.append(Difference(kind, what, peer, name, data, request, other, before, data[before["end"] if before else 0:], theirs["why"]))

    for i in range(max(len(ours["requests"]), len(theirs["requests"])) + 1):
        request, other = (reading["requests"][i] if i < len(reading["requests"]) else None for reading in (ours, theirs))
        state, their_state = (("whole" if i < len(whole(reading)) else reading["state"]) for reading in (ours, theirs))
        if request and other:
            for part in ("method", "target", "version", "fields"):
                if request[part] != other[part]:
                    differ("reading", part, request, other)
            # An unfinished body may have come further through one parser than through the other.
            shared = min(len(request["body"]), len(other["body"])) if state == their_state == "body" else None
            if request["body"][:shared] != other["body"][:shared]:
                differ("framing", "body", request, other)
            if state == their_state == "whole" and request["end"] != other["end"]:
                differ("framing", "end", request, other)
                return found
        if state != their_state:
            if "closed" in (state, their_state):
                differ("persistence", f"{state}/{their_state}", request, other)
            elif state == "refused":
                differ("stricter", ours["why"], request, other)
            elif their_state == "refused":
                differ("laxer", state, request, other)
            else:
                differ("framing", f"{state}/{their_state}", request, other)
            return found
        if state != "whole":
            return found
        before = request
    return found

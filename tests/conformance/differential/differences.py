"""Every difference between our reading and that of a peer, and why it is right. A row that matches nothing is an error.

We may be stricter than a peer, never laxer but for what a section demands or leaves to us, and never frame otherwise.
"""
import re
from collections import namedtuple

# what      stricter rows: the text with which we refuse
# applies   the other rows: whether a Difference (compare.py) is of this row
# old_node  only Node with llhttp before version 9 differs (Debian 12 has such a one)
Row = namedtuple("Row", "kind name section reason what applies old_node", defaults=(None, None, False))


def stricter(what, section, reason, old_node=False):
    return Row("stricter", what, section, reason, what, None, old_node)


def options(request):
    """The members of all Connection fields."""
    values = b",".join(value for name, value in request["fields"] if name == b"connection")
    return {option.strip(b" \t").lower() for option in values.split(b",")}


def values_of(request, name):
    return [value for key, value in request["fields"] if key == name]


# What Node has a number for and takes with HTTP/1.1. QUERY is left out: not every version knows it.
NODE_METHODS = set(b"DELETE GET HEAD POST PUT CONNECT OPTIONS TRACE COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND REBIND UNBIND ACL "
                   b"REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PATCH PURGE MKCALENDAR LINK UNLINK".split())
BARE_CR = re.compile(rb"\r(?!\n|\Z)")
TAB_AFTER_CLOSE = re.compile(rb"(?i)\nconnection:[^\r\n]*close\t+\r\n")
TAB_AFTER_FRAMING = re.compile(rb"(?i)\n(?:content-length|transfer-encoding):[^\r\n]*\t\r\n")
TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
# A size line with at least one extension, by the grammar of RFC 9112, section 7.1.1.
EXTENDED = re.compile(rb"\r\n[0-9A-Fa-f]+((?:[ \t]*;[ \t]*%s(?:[ \t]*=[ \t]*(?:%s|%s))?)+)\r\n" % (TOKEN, TOKEN, QUOTED))


def is_dropped(name):
    return b"_" in name or name == b"proxy"


def lower_codings(fields):
    return [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in fields]


def drops_fields(d):
    theirs = lower_codings(d.other["fields"])
    kept = [field for field in theirs if not is_dropped(field[0])]
    return d.what == "fields" and kept != theirs and kept == lower_codings(d.request["fields"])


def waits(d):
    """We have not judged yet: the head or the trailers are not whole, and nothing of them was passed on."""
    return d.what.startswith("head") or (d.what.startswith("body") and d.request is not None and d.request["trailers"])


def has_blank_in_extension(d):
    return d.what == "whole" and any(b" " in found or b"\t" in found for found in EXTENDED.findall(d.rest))


def is_10(request):
    return request["version"] == (1, 0)


def node_goes_on(d):
    return d.peer == "node" and d.what.startswith("closed/")


def node_ends(d):
    return d.peer == "node" and d.what.endswith("/closed")


LAXER = [
    Row("laxer", "an empty line before the request", "9112 2.2", "a server SHOULD ignore at least one; h11 ignores none",
        applies=lambda d: d.peer == "h11" and d.rest[:1] in (b"\r", b"\n")),
    Row("laxer", "a head or trailers that are not whole", "9112 3", "we judge them when the last line has come, and pass nothing on before",
        applies=waits),
    Row("laxer", "a method that Node does not know", "9110 9.1",
        "methods are extensible and only the origin can say 501: any token is forwarded",
        applies=lambda d: d.peer == "node" and d.request is not None and d.request["method"] not in NODE_METHODS),
    Row("laxer", "a tab behind Content-Length or Transfer-Encoding", "9112 5.1",
        "blanks around a value are not part of it, and HTAB is a blank",
        applies=lambda d: d.peer == "node" and d.what == "whole" and TAB_AFTER_FRAMING.search(d.rest) is not None),
    Row("laxer", "blanks around the semicolon or the equals sign of a chunk extension", "9112 7.1.1",
        "BWS, which a recipient MUST parse (9110 5.6.3)",
        applies=has_blank_in_extension),
]

FRAMING = [
    Row("framing", "a CR alone, where we still wait for LF", "9112 2.2",
        "llhttp 6 ends a head or trailers at CR and any byte; we refuse them when LF comes",
        applies=lambda d: d.peer == "node" and waits(d) and BARE_CR.search(d.rest) is not None, old_node=True),
]

PERSISTENCE = [
    Row("persistence", "keep-alive of HTTP/1.0", "9112 9.3",
        "h11 never keeps such a connection; a server MAY, when the client asks and does not say close",
        applies=lambda d: d.peer == "h11" and is_10(d.before) and {b"keep-alive", b"close"} & options(d.before) == {b"keep-alive"}),
    Row("persistence", "close and keep-alive in HTTP/1.0", "9112 9.3", "close wins: a server MUST NOT go on; Node does",
        applies=lambda d: node_goes_on(d) and is_10(d.before) and options(d.before) >= {b"close", b"keep-alive"}),
    Row("persistence", "a tab behind close", "9112 5.1", "blanks around a value are not part of it, and HTAB is a blank; Node goes on",
        applies=lambda d: node_goes_on(d) and TAB_AFTER_CLOSE.search(d.data) is not None),
    Row("persistence", "a request for an upgrade", "9110 7.8",
        "a server MAY ignore it and go on with HTTP/1.1; Node's parser stops there and leaves that to its caller",
        applies=lambda d: node_ends(d) and b"upgrade" in options(d.before) and values_of(d.before, b"upgrade")),
    Row("persistence", "Proxy-Connection", "9110 7.6.1",
        "a name that no specification gives a meaning to; we drop it, Node takes it for Connection",
        applies=lambda d: node_ends(d) and b"close" in values_of(d.before, b"proxy-connection")),
]

READING = [
    Row("reading", "fields that are dropped", "SECURITY 1.1",
        "a name with an underscore, and Proxy, would be a second spelling for programs behind CGI",
        applies=drops_fields),
    Row("reading", "codings in lower case", "9112 7",
        "h11 shows the value of Transfer-Encoding in lower case; names of codings have no case",
        applies=lambda d: d.peer == "h11" and d.what == "fields" and d.other["fields"] == lower_codings(d.request["fields"])),
]

STRICTER = [
    stricter("a line must end in CRLF", "9112 2.2", "a recipient MAY take LF alone; where two of them do not agree, a request is smuggled"),
    stricter("request line too long", "9112 3", "our limit, 414"),
    stricter("header field too long", "9110 5.4", "our limit, 431"),
    stricter("header section too large", "9110 5.4", "our limit, 431"),
    stricter("too many header fields", "9110 5.4", "our limit, 431"),
    stricter("trailer section too large", "9110 5.4", "our limits on their bytes and on their number"),
    stricter("chunk extensions too long", "9112 7.1.1", "a recipient ought to limit them"),
    stricter("malformed method", "9112 3", "blanks before a request line: more than one empty line, or another byte than CRLF"),
    stricter("malformed request line", "9112 3",
             "exactly one space, nothing behind the version, one empty line before it at most; no HTTP/0.9"),
    stricter("HTTP version not supported", "9110 15.6.6", "only 1.0 and 1.1 are ours to frame"),
    stricter("illegal byte in the request target", "3986 2", "bytes that no URI has: the next parser may end it there"),
    stricter("malformed request target", "9112 3.2", "only the four forms, each with its methods, and the schemes http and https"),
    stricter("malformed percent-encoding", "3986 2.1", "two hexadecimal digits"),
    stricter("refused percent-encoding", "SECURITY 1.4", "a control byte would come out where the path is decoded"),
    stricter("overlong UTF-8 in the path", "3629 3", "a second spelling of another character"),
    stricter("path climbs above the root", "3986 5.2.4", "rules on paths must see what the origin will open"),
    stricter("dot segment with parameters", "SECURITY 1.4", "some origins cut the parameters off first, and then climb"),
    stricter("malformed Host", "9112 3.2", "400 for an invalid value; neither peer looks at it"),
    stricter("missing Host", "9112 3.2", "400 in HTTP/1.1; Node leaves it to its server"),
    stricter("more than one Host", "9112 3.2", "400; Node leaves it to its server"),
    stricter("CONNECT is not supported", "9110 9.3.6", "we are no tunnel"),
    stricter("malformed field name", "9112 5.1", "llhttp 6 reads on behind a CR alone", old_node=True),
    stricter("illegal byte in a field value", "9110 5.5", "control bytes; h11 takes all but NUL and blanks"),
    stricter("obsolete line folding", "9112 5.2", "400 is one of the two answers that are allowed"),
    stricter("malformed Content-Length", "9112 6.3", "one number of at most 18 significant digits; a list of equal ones MAY be refused"),
    stricter("more than one Content-Length", "9112 6.3", "also of the same value"),
    stricter("malformed Transfer-Encoding", "9112 6.3", "nothing but chunked and the registered codings; what else it may mean is a guess"),
    stricter("more than one Transfer-Encoding", "9112 6.1", "chunked twice, or a coding behind it"),
    stricter("transfer coding not implemented", "9112 6.1", "501 for a coding that we cannot undo"),
    stricter("Transfer-Encoding in HTTP/1.0", "9112 6.1", "MUST be treated as faulty framing"),
    stricter("Content-Length with Transfer-Encoding", "9112 6.1", "a server MAY reject it: it is how requests are smuggled"),
    stricter("malformed chunk", "9112 7.1", "a size of at most 16 digits, extensions by the grammar, CRLF behind line and data"),
    stricter("field not allowed in trailers", "9110 6.5.1", "nothing that frames, routes or authenticates"),
    stricter("expectation not supported", "9110 10.1.1", "417 for any but 100-continue; Node leaves it to its server"),
    stricter("Connection names a field that it may not remove", "9110 7.6.1", "it would take Host or credentials from the next hop"),
]

ROWS = STRICTER + LAXER + FRAMING + PERSISTENCE + READING


def row_of(difference):
    """The row that explains it, or None."""
    for row in ROWS:
        if row.kind == difference.kind and (row.what == difference.what if row.what else row.applies(difference)):
            return row
    return None

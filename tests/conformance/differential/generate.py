"""Inputs of the differential test: valid requests of every kind, and each point of the grammar of RFC 9112 bent in turn.

Always the same list: the random part has a fixed seed. An input is (name, bytes); names of one family begin alike.
"""
import random

SEED = 9112
H = b"Host: a\r\n"
GET = b"GET / HTTP/1.1\r\n" + H
POST = b"POST / HTTP/1.1\r\n" + H
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: b\r\n\r\n"
BYTES = [bytes([byte]) for byte in range(256)]
BLANKS = [b"", b" ", b"  ", b"\t", b" \t", b"\x0b", b"\x0c", b"\xa0", b"\x85", b"\0"]
LINE_ENDS = [b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\r", b"\r\0\n", b" \r\n", b"\t\r\n", b"\x85", b"\r\n ", b"\r\n\t", b""]

METHODS = [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"PURGE", b"PROPFIND", b"M-SEARCH"]
TARGETS = [b"/", b"/a/b.c", b"/a//b", b"/a/./b/../c", b"/%41%2e%7e", b"/a;x=1/b;y", b"/?", b"/a?b=c&d", b"/?a?b", b"/a:b@c",
           b"/!$&'()*+,;=", b"http://a/", b"http://A.example:80/x", b"HTTP://a", b"https://[::1]:443/x?y", b"http://a?x"]
BODIES = [b"\r\n", b"Content-Length: 0\r\n\r\n", b"Content-Length: 5\r\n\r\nhello", b"content-length:5\r\n\r\n\r\n\r\n\r",
          b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
          b"transfer-encoding:CHUNKED\r\n\r\n1;a\r\nh\r\n00A;b=c;d=\"e\"\r\n0123456789\r\n0;f=g\r\n\r\n",
          b"Transfer-Encoding: chunked\r\nTrailer: T\r\n\r\n2\r\n\r\n\r\n0\r\nT: u\r\nV:\r\n\r\n"]
EXTRAS = [b"", b"X: y\r\n", b"X:\r\nX: \t\r\n", b"Accept: */*\r\nCookie: a=b; c=d\r\n", b"X: \x80\xff\t\"\\\r\n",
          b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\n", b"Connection: upgrade\r\nUpgrade: websocket\r\n"]
CLOSES = [b"", b"Connection: close\r\n", b"connection: x, Close\r\n"]


def valid():
    for method in METHODS:
        for target in TARGETS:
            for body in BODIES:
                yield "valid", method + b" " + target + b" HTTP/1.1\r\n" + H + body
    for extra in EXTRAS:
        for close in CLOSES:
            for body in BODIES:
                yield "valid", POST + extra + close + body
                yield "valid", b"\r\nPUT /x HTTP/1.1\r\n" + extra + H + close + body + NEXT
    for target in (b"*", b"/", b"http://a"):
        yield "valid", b"OPTIONS " + target + b" HTTP/1.1\r\n" + H + b"\r\n"
    for host in (b"a", b"A.", b"a:", b"a:80", b"127.0.0.1:8080", b"[::1]", b"[2001:DB8::1]:443", b"a-b_c.d~e", b"!$&'()*+,;="):
        yield "valid", b"GET / HTTP/1.1\r\nhOST:" + host + b" \t\r\n\r\n"
    for fields in (b"", H, H + b"Connection: close\r\n", H + b"Connection: keep-alive\r\n"):
        for body in BODIES[:4]:
            yield "valid", b"POST / HTTP/1.0\r\n" + fields + body


def request_line():
    for blank in BLANKS:
        yield "line/blank before", blank + GET + b"\r\n"
        yield "line/blank after method", b"GET" + blank + b"/ HTTP/1.1\r\n" + H + b"\r\n"
        yield "line/blank after target", b"GET /" + blank + b"HTTP/1.1\r\n" + H + b"\r\n"
        yield "line/blank at end", b"GET / HTTP/1.1" + blank + b"\r\n" + H + b"\r\n"
        yield "line/blank in version", b"GET / HTTP" + blank + b"/1.1\r\n" + H + b"\r\n"
    for byte in BYTES:
        yield "line/byte in method", b"G" + byte + b"T / HTTP/1.1\r\n" + H + b"\r\n"
        yield "line/first byte", byte + b"GET / HTTP/1.1\r\n" + H + b"\r\n"
        yield "line/byte in version", b"GET / HTTP/1" + byte + b"1\r\n" + H + b"\r\n"
        yield "line/byte after version", b"GET / HTTP/1.1" + byte + b"\r\n" + H + b"\r\n"
        yield "line/major", b"GET / HTTP/" + byte + b".1\r\n" + H + b"\r\n"
        yield "line/minor", b"GET / HTTP/1." + byte + b"\r\n" + H + b"\r\n"
    for version in (b"HTTP/1.10", b"HTTP/01.1", b"HTTP/1", b"HTTP/1.", b"HTTP/.1", b"HTTP/11", b"http/1.1", b"Http/1.1", b"HTTP 1.1",
                    b"HTTPS/1.1", b"ICE/1.0", b"RTSP/1.0", b"HTTP/2", b"HTTP/2.0", b"HTTP/3.0", b"HTTP/0.9", b"HTTP/-1.1", b"HTTP/1.1.1",
                    b"HTTP/1.1 HTTP/1.1", b"H", b""):
        for method in (b"GET", b"SOURCE", b"OPTIONS"):
            yield "line/version", method + b" / " + version + b"\r\n" + H + b"\r\n"
    for method in (b"get", b"Get", b"FOO", b"G", b"GETT", b"GE", b"POS", b"X" * 64, b"CONNECT", b"PRI", b"QUERY", b"SETUP", b"SOURCE",
                   b"!#$%&'*+-.^_`|~", b"0", b"MKCOL", b"LINK", b"ACL", b"SEARCH", b"REPORT", b"FLUSH", b"\"GET\"", b"GET:", b"(GET)",
                   b"GET,", b""):
        for target in (b"/", b"*", b"a:80", b"http://a/"):
            yield "line/method", method + b" " + target + b" HTTP/1.1\r\n" + H + b"\r\n"
    for line in (b"GET", b"GET ", b"GET /", b"GET / ", b"/ HTTP/1.1", b"GET HTTP/1.1", b"HTTP/1.1 200 OK", b"Host: a", b"PRI * HTTP/2.0",
                 b"\x16\x03\x01\x02\x00\x01", b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2", b"GET / HTTP/1.1 x", b"GET / x HTTP/1.1",
                 b"GET /\tHTTP/1.1"):
        yield "line/shape", line + b"\r\n" + H + b"\r\n"
        yield "line/shape without fields", line + b"\r\n\r\n"


def targets():
    for byte in BYTES:
        for name, before, after in (("path", b"/a", b"b"), ("query", b"/?a", b"b"), ("first", b"", b"a"), ("scheme", b"h", b"ttp://a/"),
                                    ("authority", b"http://a", b"/"), ("absolute path", b"http://a/", b"b"),
                                    ("absolute query", b"http://a?", b"b")):
            yield "target/byte in " + name, b"GET " + before + byte + after + b" HTTP/1.1\r\n" + H + b"\r\n"
        yield "target/percent", b"GET /%%%02x HTTP/1.1\r\n" % byte[0] + H + b"\r\n"
        yield "target/byte after percent", b"GET /%4" + byte + b" HTTP/1.1\r\n" + H + b"\r\n"
    for target in (b"a", b"a/b", b"*", b"*a", b"a:80", b"//a", b"///", b"http:", b"http:/", b"http://", b"http:///", b"http:a", b"ftp://a/",
                   b"file:///a", b"http://u@a/", b"http://u:p@a/", b"http://a:", b"http://a:x/", b"http://a:99999/", b"http://[::1",
                   b"http://::1/", b"http://[]/", b"http://a#b", b"/a#b", b"#", b"?", b"/..", b"/a/../..", b"/%2e%2e/a", b"/..;/a", b"/%",
                   b"/%4", b"/%zz", b"/%00", b"/%2f", b"/%5c", b"/%c0%af", b"/\xc3\xa4", b"/%e0%80%af", b"/a\\b", b"http://a/..",
                   b"http://a b/", b"1http://a/", b"ht+tp://a/", b"HTTP/1.1", b"http://a@b@c/", b"http://a/?#", b"/" + b"a" * 5000):
        for method in (b"GET", b"OPTIONS", b"CONNECT", b"POST"):
            yield "target/form", method + b" " + target + b" HTTP/1.1\r\n" + H + b"\r\n"


def fields():
    for byte in BYTES:
        for name, line in (("name", b"X" + byte + b"Y: z"), ("first byte", byte + b"X: z"), ("before the colon", b"X" + byte + b": z"),
                           ("after the colon", b"X:" + byte + b"z"), ("value", b"X: y" + byte + b"z"), ("end of value", b"X: y" + byte),
                           ("instead of the colon", b"X" + byte + b" y"), ("alone", b"X:" + byte)):
            yield "field/" + name, GET + line + b"\r\n\r\n"
        yield "field/byte in Host", b"GET / HTTP/1.1\r\nHost: a" + byte + b"b\r\n\r\n"
        yield "field/byte in Connection", GET + b"Connection: close" + byte + b"x\r\n\r\n" + NEXT
    for host in (b"Host:\r\n", b"Host: \r\n", H + H, b"Host: a\r\nHost: b\r\n", b"Host: a, b\r\n", b"Host: a b\r\n", b"Host : a\r\n",
                 b" Host: a\r\n", b"Host a\r\n", b"X: y\r\n", b"", b"Host: a:b\r\n", b"Host: a:80:80\r\n", b"Host: a:65536\r\n",
                 b"Host: http://a\r\n", b"Host: a/b\r\n", b"Host: u@a\r\n", b"Host: .\r\n", b"Host: [::1\r\n", b"Host: [a]\r\n",
                 b"Host: ::1\r\n", b"Host:\r\n a\r\n", b"Host: a\r\n b\r\n"):
        for version in (b"1.0", b"1.1"):
            for target in (b"/", b"http://a/"):
                yield "field/host", b"GET " + target + b" HTTP/" + version + b"\r\n" + host + b"\r\n"
    for line in (b"X", b"X\r\nY: z", b": y", b" : y", b"X y: z", b"X:: y", b"X: y: z", b"\"X\": y", b"X(a): y", b"X;: y", b"X,Y: z",
                 b"X/Y: z", b"X[0]: y", b"{X}: y", b"X=y", b"@X: y", b"X_Y: z", b"_: y", b"Proxy: a", b"Content_Length: 5",
                 b"Transfer_Encoding: chunked", b"Expect: x", b"Expect: 100-Continue", b"Expect: 100-continue, x", b"Expect:",
                 b"TE: trailers", b"Upgrade: h2c", b"Keep-Alive: timeout=5", b"Proxy-Connection: close", b"X: " + b"y" * 4000,
                 b"X" * 300 + b": y"):
        yield "field/line", GET + line + b"\r\n\r\n" + NEXT
        yield "field/line with a body", POST + line + b"\r\nContent-Length: 2\r\n\r\nab" + NEXT
    for fold in (b"\r\n ", b"\r\n\t", b"\r\n  \t", b"\r\n \r\n ", b" \r\n ", b"\n ", b"\r "):
        for line in (b"X: y" + fold + b"z", b"X:" + fold + b"y", b"X" + fold + b": y", b"X: y" + fold,
                     b"Transfer-Encoding:" + fold + b"chunked", b"Content-Length: 1" + fold + b"0", b"Connection: clo" + fold + b"se",
                     b"X: y" + fold + b"Content-Length: 5"):
            yield "field/fold", GET + line + b"\r\n\r\n" + NEXT
            yield "field/fold first", b"GET / HTTP/1.1\r\n" + fold.lstrip(b"\r\n") + line + b"\r\n" + H + b"\r\n" + NEXT


def line_ends():
    """Every CRLF of some messages, replaced in turn."""
    for message in (GET + b"X: y\r\n\r\n" + NEXT, POST + b"Content-Length: 2\r\n\r\nab" + NEXT,
                    CHUNKED + b"1;a=b\r\nx\r\n0\r\nT: u\r\n\r\n" + NEXT, b"\r\n" + GET + b"\r\n"):
        parts = message.split(b"\r\n")
        for i in range(1, len(parts)):
            for end in LINE_ENDS:
                yield "line end", b"\r\n".join(parts[:i]) + end + b"\r\n".join(parts[i:])


LENGTHS = [b"0", b"5", b"05", b"0000000005", b"0" * 17 + b"5", b"0" * 24 + b"5", b"+5", b"-5", b"-0", b"5.0", b"5e0", b"0x5", b"5,5",
           b"5, 5", b"5,6", b"5;", b"5 5", b"5\t", b" 5 ", b"\x0b5", b"5\x0c", b"\xa05", b"'5'", b"\"5\"", b"five", b"", b" ", b",", b"5,",
           b",5", b"18446744073709551615", b"18446744073709551616", b"18446744073709551621", b"9223372036854775807", b"9223372036854775808",
           b"999999999999999999", b"1000000000000000000", b"4294967296", b"4294967301", b"5_0", b"\xd9\xa5", b"5\0", b"NaN", b"inf"]
CODINGS = [b"chunked", b"Chunked", b"CHUNKED", b" chunked\t", b"chunked,", b",chunked", b"chunked, chunked", b"chunked,identity",
           b"identity", b"identity, chunked", b"gzip", b"gzip, chunked", b"gzip,chunked", b"chunked, gzip", b"deflate, gzip, chunked", b"x",
           b"x, chunked", b"chunked;a=b", b"chunked; a=b", b"chunked ;", b"\"chunked\"", b"'chunked'", b"xchunked", b"chunkedx",
           b"chunked x", b"x chunked", b"chunke", b"chunked\0", b"\0chunked", b"\x0bchunked", b"chunked\x0b", b"chunked\x0c",
           b"\xa0chunked", b"chunked\x85", b"", b" ", b",", b"chun\tked", b"ch unked", b"[chunked]", b"chunked/1", b"c\xefhunked",
           b"gzip;q=1, chunked", b"trailers", b"chunked,,"]


def framings():
    chunks = b"5\r\nhello\r\n0\r\n\r\n"
    for method in (b"GET", b"POST", b"DELETE", b"HEAD", b"OPTIONS"):
        for version in (b"1.1", b"1.0"):
            for length in LENGTHS:
                yield "length/value", method + b" / HTTP/" + version + b"\r\n" + H + b"Content-Length: " + length + b"\r\n\r\nhello" + NEXT
            for coding in CODINGS:
                yield "coding/value", method + b" / HTTP/" + version + b"\r\n" + H + b"Transfer-Encoding: " + coding + b"\r\n\r\n" + chunks + NEXT
    for one in LENGTHS[:16] + CODINGS[:14]:
        for two in LENGTHS[:16] + CODINGS[:14]:
            first, second = (b"Content-Length: " if value in LENGTHS else b"Transfer-Encoding: " for value in (one, two))
            yield "framing/two fields", POST + first + one + b"\r\nX: y\r\n" + second + two + b"\r\n\r\n" + chunks + NEXT
    for name in (b"Content-Length", b"content-length", b"CONTENT-LENGTH", b"Content_Length", b"Content-Length ", b" Content-Length",
                 b"Content-Length\t", b"Content-Length\0", b"Content\xadLength", b"X-Content-Length", b"Content-Length\r",
                 b"\"Content-Length\"", b"Content Length", b"Content-Lengt", b"Content-Lengthh", b"Content--Length", b"\x0bContent-Length"):
        for other in (b"", b"Transfer-Encoding: chunked\r\n"):
            yield "length/name", POST + name + b": 5\r\n" + other + b"\r\n" + chunks + NEXT
            yield "length/name first", POST + other + name + b": 5\r\n\r\n" + chunks + NEXT
    for name in (b"transfer-encoding", b"TRANSFER-ENCODING", b"Transfer_Encoding", b"Transfer-Encoding ", b" Transfer-Encoding",
                 b"Transfer-Encoding\t", b"Transfer-Encoding\0", b"Transfer Encoding", b"X-Transfer-Encoding", b"Transfer-Encoding\r",
                 b"Transfer-Encodin", b"Transfer-Encodings", b"\x0bTransfer-Encoding", b"Transfer-Coding", b"TE"):
        for other in (b"", b"Content-Length: 5\r\n"):
            yield "coding/name", POST + name + b": chunked\r\n" + other + b"\r\n" + chunks + NEXT


def chunks():
    end = b"\r\nh\r\n0\r\n\r\n" + NEXT
    for byte in BYTES:
        for name, text in (("first", byte + b"1" + end), ("after the size", b"1" + byte + end), ("in the gap", b"1 " + byte + end),
                           ("after the semicolon", b"1;" + byte + end), ("in an extension name", b"1;a" + byte + b"b" + end),
                           ("after an equals", b"1;a=" + byte + end), ("in an extension value", b"1;a=b" + byte + b"c" + end),
                           ("in quotes", b"1;a=\"" + byte + b"\"" + end), ("escaped", b"1;a=\"\\" + byte + b"\"" + end),
                           ("after quotes", b"1;a=\"b\"" + byte + end), ("after the data", b"1\r\nh" + byte + b"\n0\r\n\r\n" + NEXT),
                           ("in a trailer name", b"0\r\nT" + byte + b"U: v\r\n\r\n" + NEXT), ("in a trailer value",
                                                                                              b"0\r\nT: u" + byte + b"v\r\n\r\n" + NEXT),
                           ("after the last size", b"0" + byte + b"\r\n\r\n" + NEXT), ("at the end", b"0\r\n" + byte + b"\n" + NEXT),
                           ("as data", b"1\r\n" + byte + b"\r\n0\r\n\r\n" + NEXT)):
            yield "chunk/byte " + name, CHUNKED + text
    for size in (b"01", b"0" * 14 + b"01", b"0" * 15 + b"01", b"0" * 16 + b"01", b"0" * 19 + b"1", b"0" * 20 + b"1", b"0x1", b"+1", b"-1",
                 b"1.0", b"1 1", b"1h", b"", b" ", b"ffffffffffffffff", b"10000000000000001", b"7fffffffffffffff", b"8000000000000000",
                 b"fffffffffffffff0", b"100000001", b"ffffffff", b"A", b"a", b"g", b"1,1", b"1_0", b"\xef\xbc\x91", b"1\0"):
        yield "chunk/size", CHUNKED + size + end
        yield "chunk/size of ten", CHUNKED + size + b"\r\n0123456789\r\n0\r\n\r\n" + NEXT
    for extension in (b";", b";;", b" ;", b"; ", b" ; a", b";a", b";a=", b";=b", b";a=b", b"; a = b", b"\t;\ta\t=\tb\t", b";a=b;c=d",
                      b";a=\"b\"", b";a=\"b;c\"", b";a=\"", b";a=\"b", b";a=b\"c", b";a=\"\\\"\"", b";a=\"\\", b";a=\"b\"c", b";a b",
                      b";a=b c", b" a", b" 5", b",a", b"=a", b";a=(b)", b";a/b", b";\xc3\xa4", b";a=\xc3\xa4", b";a=\"\xc3\xa4\"", b";a;",
                      b";a=b;", b";a\r", b";\r\r", b";a=\"b\r\nc\"", b";a\n", b";a=b\n", b";a=\"b\nc\"", b"\n", b";" + b"x" * 200,
                      b";a" * 60):
        yield "chunk/extension", CHUNKED + b"1" + extension + end
        yield "chunk/last extension", CHUNKED + b"1\r\nh\r\n0" + extension + b"\r\n\r\n" + NEXT
    for data in (b"1\r\nhh\r\n", b"2\r\nh\r\n", b"1\r\nh", b"1\r\nh\r", b"1\r\nh\n", b"1\r\n\r\n\r\n", b"1\r\nhX\r\n", b"1\r\nh\r\n\r\n",
                 b"0\r\n\r\n", b"00\r\n\r\n", b"000;a\r\n\r\n", b"1\r\nh 0", b"\r\n"):
        yield "chunk/data", CHUNKED + data + b"0\r\n\r\n" + NEXT
    for trailer in (b"T: u", b"T:", b"T", b": u", b"T : u", b" T: u", b"T: u\r\n v", b"T: u\r\nT: v", b"Content-Length: 5",
                    b"Content-Length: x", b"Transfer-Encoding: chunked", b"Transfer-Encoding: x", b"Host: b", b"Trailer: T",
                    b"Connection: close", b"Connection: keep-alive", b"Upgrade: x", b"Authorization: x", b"Cookie: x", b"Set-Cookie: x",
                    b"Expect: 100-continue", b"TE: trailers", b"X-Forwarded-For: b", b"Via: b", b"X_Y: z", b"Proxy: b", b"Keep-Alive: x",
                    b"GET / HTTP/1.1", b"T: \x80", b"T: u\rv", b"T: u\0", b"T: \x01", b"T: " + b"u" * 3000):
        yield "trailer/line", CHUNKED + b"0\r\n" + trailer + b"\r\n\r\n" + NEXT
        yield "trailer/second line", CHUNKED + b"1\r\nh\r\n0\r\nA: b\r\n" + trailer + b"\r\n\r\n" + NEXT


def connections():
    values = [b"close", b"Close", b"CLOSE", b"keep-alive", b"Keep-Alive", b"close, keep-alive", b"keep-alive, close", b"close,close",
              b",close", b"close,", b", ,close", b"x, close", b"x,close,y", b"closed", b"xclose", b"close x", b"close;x", b"\"close\"",
              b"clos", b"", b",", b"upgrade", b"upgrade, close", b"close, upgrade", b"Upgrade,keep-alive", b"host", b"content-length",
              b"transfer-encoding", b"x-forwarded-for", b"cookie", b"authorization", b"via", b"te", b"connection", b"close\t", b"\tclose",
              b"close ,x", b"keep-alive\t,\tclose", b"keepalive", b"close=1"]
    for version in (b"1.0", b"1.1"):
        for one in values:
            yield "connection/value", b"GET / HTTP/" + version + b"\r\n" + H + b"Connection: " + one + b"\r\n\r\n" + NEXT
            yield "connection/value with a body", b"POST / HTTP/" + version + b"\r\n" + H + b"Connection: " + one + b"\r\nContent-Length: 2\r\n\r\nab" + NEXT
            yield "connection/value with an upgrade", b"POST / HTTP/" + version + b"\r\n" + H + b"Upgrade: x\r\nConnection: " + one + b"\r\nContent-Length: 2\r\n\r\nab" + NEXT
            for two in values[:8]:
                yield "connection/two fields", b"GET / HTTP/" + version + b"\r\nConnection: " + one + b"\r\n" + H + b"Connection: " + two + b"\r\n\r\n" + NEXT
        yield "connection/none", b"GET / HTTP/" + version + b"\r\n" + H + b"\r\n" + NEXT
        yield "connection/none without host", b"GET / HTTP/" + version + b"\r\n\r\n" + NEXT


def pipelines():
    between = [b"", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\n\n", b"\r\n\n", b" ", b"\t", b"\0", b"x", b"xx\r\n", b"0\r\n\r\n", b"\r\n ",
               b"HTTP/1.1 200 OK\r\n\r\n"]
    firsts = [POST + body for body in BODIES] + [b"GET / HTTP/1.0\r\n" + H + b"\r\n",
                                                 b"HEAD / HTTP/1.1\r\n" + H + b"Content-Length: 0\r\n\r\n",
                                                 b"GET / HTTP/1.1\r\n" + H + b"Content-Length: 3\r\n\r\nabc"]
    seconds = [b"", NEXT, CHUNKED + b"1\r\nh\r\n0\r\n\r\n", POST + b"Content-Length: 2\r\n\r\nab", b"GET", b"junk\r\n\r\n", NEXT + NEXT,
               POST + b"Content-Length: 2\r\n\r\na", b"GET / HTTP/1.1\r\n\r\n"]
    for first in firsts:
        for gap in between:
            for second in seconds:
                yield "pipeline", first + gap + second
    yield "pipeline/many", NEXT * 50


def cuts():
    for message in (b"GET /a HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n", POST + b"Content-Length: 12\r\n\r\nhello, world",
                    CHUNKED + b"5;a=\"b\"\r\nhello\r\n01\r\n!\r\n0\r\nT: u\r\n\r\n", b"\r\n" + NEXT + NEXT):
        for end in range(len(message)):
            yield "cut", message[:end]


def limits():
    for n in (4000, 8000, 8170, 8200, 20000, 40000):
        yield "limit/target", b"GET /" + b"a" * n + b" HTTP/1.1\r\n" + H + b"\r\n"
        yield "limit/field", GET + b"X: " + b"y" * n + b"\r\n\r\n"
        yield "limit/method", b"X" * n + b" / HTTP/1.1\r\n" + H + b"\r\n"
        yield "limit/name", GET + b"X" * n + b": y\r\n\r\n"
        yield "limit/head", GET + (b"X: " + b"y" * 1000 + b"\r\n") * (n // 1000) + b"\r\n"
        yield "limit/trailers", CHUNKED + b"0\r\n" + b"T: u\r\n" * (n // 6) + b"\r\n"
        yield "limit/extensions", CHUNKED + (b"1;" + b"x" * 200 + b"\r\nh\r\n") * (n // 300) + b"0\r\n\r\n"
    for n in (99, 100, 101, 300):
        yield "limit/fields", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * (n - 1) + H + b"\r\n"
        yield "limit/extension", CHUNKED + b"1;" + b"x" * n + b"\r\nh\r\n0\r\n\r\n"
        yield "limit/trailer fields", CHUNKED + b"0\r\n" + b"T: u\r\n" * (n // 3) + b"\r\n"
    yield "limit/body", POST + b"Content-Length: 20000\r\n\r\n" + b"a" * 20000 + NEXT
    yield "limit/chunk", CHUNKED + b"4e20\r\n" + b"a" * 20000 + b"\r\n0\r\n\r\n" + NEXT


# What a mutation puts in: bytes and words on which parsers have differed.
PIECES = [b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\0", b" ", b"\t", b"\x0b", b"\x7f", b"\x80", b"\xff", b":", b";", b",", b"=", b"\"", b"\\",
          b"%", b"/", b"?", b"#", b"0", b"1", b"5", b"f", b"chunked", b"close", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n",
          b"Connection: close\r\n", H, b"HTTP/1.1", b"HTTP/1.0", b"GET / ", b"0\r\n\r\n", b"3\r\nabc\r\n", b"\r\n ",
          b"Expect: 100-continue\r\n"]


def mutate(rng, message):
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(message) + 1)
        end = min(len(message), at + rng.choice((1, 1, 2, 4, 8, 20)))
        how = rng.randrange(6)
        if how == 0:
            message = message[:at] + message[end:]
        elif how == 1:
            message = message[:at] + rng.choice(PIECES) + message[at:]
        elif how == 2:
            message = message[:at] + rng.choice(PIECES) + message[end:]
        elif how == 3:
            message = message[:at] + bytes([rng.randrange(256)]) + message[at + 1:]
        elif how == 4:
            message = message[:end] + message[at:]
        else:
            other = rng.randrange(len(message) + 1)
            message = message[:at] + message[other:other + end - at] + message[at:]
    return message


def mutations():
    rng = random.Random(SEED)
    seeds = [data for _, data in valid() if len(data) < 400]
    for _ in range(5000):
        message = rng.choice(seeds)
        if rng.randrange(3) == 0:
            message += rng.choice((NEXT, rng.choice(seeds)))
        yield "mutation", mutate(rng, message)


def inputs():
    """All of them, each once, in an order that does not change."""
    seen = set()
    for family in (valid, request_line, targets, fields, line_ends, framings, chunks, connections, pipelines, cuts, limits, mutations):
        for name, data in family():
            if data not in seen:
                seen.add(data)
                yield name, data

"""Bytes of a client, the verdict, and the section that says so. Refused: nothing reaches the origin, and the connection ends."""
import time

import pytest
from client import Client, Cut
from origin import body_of

H = b"Host: a\r\n"
GET = b"GET / HTTP/1.1\r\n" + H
POST = b"POST / HTTP/1.1\r\n" + H
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

REFUSED = [
    ("bare LF ends the request line", b"GET / HTTP/1.1\n" + H + b"\r\n", 400, "9112 2.2"),
    ("bare LF ends a field", b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400, "9112 2.2"),
    ("bare CR in a field", GET + b"X: a\rb\r\n\r\n", 400, "9112 2.2"),
    ("NUL in a field", GET + b"X: a\0b\r\n\r\n", 400, "9110 5.5"),
    ("control byte in a field", GET + b"X: a\x01b\r\n\r\n", 400, "9110 5.5"),
    ("DEL in a field", GET + b"X: a\x7fb\r\n\r\n", 400, "9110 5.5"),
    ("two empty lines first", b"\r\n\r\n" + GET + b"\r\n", 400, "9112 2.2"),
    ("bare LF first", b"\n" + GET + b"\r\n", 400, "9112 2.2"),
    ("bare LF ends the head", GET + b"\n", 400, "9112 2.2"),
    ("CR CR LF", b"GET / HTTP/1.1\r\r\n" + H + b"\r\n", 400, "9112 2.2"),
    ("CR CR LF after a field", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400, "9112 2.2"),
    ("bare CR in the request line", b"GET /\ra HTTP/1.1\r\n" + H + b"\r\n", 400, "9112 2.2"),
    ("blank before the request line", b" " + GET + b"\r\n", 400, "9112 3"),
    ("HTTP/0.9", b"GET /\r\n\r\n", 400, "9112 2.3"),
    ("HTTP/2.0", b"GET / HTTP/2.0\r\n" + H + b"\r\n", 505, "9110 15.6.6"),
    ("HTTP/1.2", b"GET / HTTP/1.2\r\n" + H + b"\r\n", 505, "9110 15.6.6"),
    ("HTTP/0.9 by name", b"GET / HTTP/0.9\r\n" + H + b"\r\n", 505, "9110 15.6.6"),
    ("HTTP/1.10", b"GET / HTTP/1.10\r\n" + H + b"\r\n", 400, "9112 2.3"),
    ("HTTP/01.1", b"GET / HTTP/01.1\r\n" + H + b"\r\n", 400, "9112 2.3"),
    ("HTTP/1", b"GET / HTTP/1\r\n" + H + b"\r\n", 400, "9112 2.3"),
    ("HTTP/1,1", b"GET / HTTP/1,1\r\n" + H + b"\r\n", 400, "9112 2.3"),
    ("another protocol", b"GET / RTSP/1.0\r\n" + H + b"\r\n", 400, "9112 2.3"),
    ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "9113 3.4"),
    ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "9112 3"),
    ("lower-case http", b"GET / http/1.1\r\n" + H + b"\r\n", 400, "9112 2.3"),
    ("two spaces", b"GET  / HTTP/1.1\r\n" + H + b"\r\n", 400, "9112 3"),
    ("tab for space", b"GET\t/ HTTP/1.1\r\n" + H + b"\r\n", 400, "9112 3"),
    ("space at the end", b"GET / HTTP/1.1 \r\n" + H + b"\r\n", 400, "9112 3"),
    ("two spaces before the version", b"GET /  HTTP/1.1\r\n" + H + b"\r\n", 400, "9112 3"),
    ("form feed for space", b"GET\x0c/ HTTP/1.1\r\n" + H + b"\r\n", 400, "9112 3"),
    ("no target", b"GET HTTP/1.1\r\n" + H + b"\r\n", 400, "9112 3"),
    ("method only", b"GET\r\n" + H + b"\r\n", 400, "9112 3"),
    ("NUL in the method", b"G\0T / HTTP/1.1\r\n" + H + b"\r\n", 400, "9110 9.1"),
    ("space in the target", b"GET /a b HTTP/1.1\r\n" + H + b"\r\n", 400, "9112 3.2"),
    ("empty method", b" / HTTP/1.1\r\n" + H + b"\r\n", 400, "9110 9.1"),
    ("method that is no token", b"G@T / HTTP/1.1\r\n" + H + b"\r\n", 400, "9110 9.1"),
    ("fragment", b"GET /a#b HTTP/1.1\r\n" + H + b"\r\n", 400, "9112 3.2.1"),
    ("backslash", b"GET /a\\b HTTP/1.1\r\n" + H + b"\r\n", 400, "3986 2"),
    *((f"byte {byte!r} in the target", b"GET /a" + byte + b"b HTTP/1.1\r\n" + H + b"\r\n", 400, "3986 2")
      for byte in (b'"', b"<", b">", b"^", b"`", b"{", b"}", b"\0", b"\x01", b"\t", b"\x7f")),
    ("illegal byte in the query", b"GET /a?b=<c> HTTP/1.1\r\n" + H + b"\r\n", 400, "3986 3.4"),
    ("byte over 0x7f in the target", b"GET /\xc3\xa4 HTTP/1.1\r\n" + H + b"\r\n", 400, "3986 2"),
    ("target without slash", b"GET a HTTP/1.1\r\n" + H + b"\r\n", 400, "9112 3.2.1"),
    ("asterisk outside OPTIONS", b"GET * HTTP/1.1\r\n" + H + b"\r\n", 400, "9112 3.2.4"),
    ("CONNECT", b"CONNECT a:443 HTTP/1.1\r\n" + H + b"\r\n", 501, "9110 9.3.6"),
    ("absolute-form of another scheme", b"GET ftp://a/ HTTP/1.1\r\n" + H + b"\r\n", 400, "9112 3.2.2"),
    ("absolute-form with userinfo", b"GET http://u@a/ HTTP/1.1\r\n" + H + b"\r\n", 400, "9110 4.2.4"),
    ("absolute-form without host", b"GET http:/// HTTP/1.1\r\n" + H + b"\r\n", 400, "9110 4.2.1"),
    ("absolute-form with nothing after the scheme", b"GET http:// HTTP/1.1\r\n" + H + b"\r\n", 400, "9110 4.2.1"),
    ("absolute-form with a bad port", b"GET http://a:x/ HTTP/1.1\r\n" + H + b"\r\n", 400, "9110 4.2.1"),
    ("absolute-form without Host", b"GET http://a/ HTTP/1.1\r\n\r\n", 400, "9112 3.2"),
    ("absolute-form with a Host that is none", b"GET http://a/ HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "9112 3.2"),
    ("authority-form outside CONNECT", b"GET a:80 HTTP/1.1\r\n" + H + b"\r\n", 400, "9112 3.2.3"),
    ("asterisk and more", b"OPTIONS *a HTTP/1.1\r\n" + H + b"\r\n", 400, "9112 3.2.4"),
    ("CONNECT with a path", b"CONNECT / HTTP/1.1\r\n" + H + b"\r\n", 501, "9112 3.2.3"),
    ("bad percent-encoding", b"GET /%zz HTTP/1.1\r\n" + H + b"\r\n", 400, "3986 2.1"),
    ("cut percent-encoding", b"GET /%4 HTTP/1.1\r\n" + H + b"\r\n", 400, "3986 2.1"),
    ("encoded NUL", b"GET /%00 HTTP/1.1\r\n" + H + b"\r\n", 400, "SECURITY 1.4"),
    ("above the root", b"GET /a/../../b HTTP/1.1\r\n" + H + b"\r\n", 400, "3986 5.2.4"),
    ("above the root, encoded", b"GET /%2e%2e/b HTTP/1.1\r\n" + H + b"\r\n", 400, "3986 5.2.4"),
    ("overlong UTF-8", b"GET /%c0%af HTTP/1.1\r\n" + H + b"\r\n", 400, "3629 3"),
    ("overlong UTF-8 of three bytes", b"GET /%e0%80%af HTTP/1.1\r\n" + H + b"\r\n", 400, "3629 3"),
    ("encoded CR LF", b"GET /%0d%0aX:%20a HTTP/1.1\r\n" + H + b"\r\n", 400, "SECURITY 1.4"),
    ("space before the colon", GET + b"X : a\r\n\r\n", 400, "9112 5.1"),
    ("empty name", GET + b": a\r\n\r\n", 400, "9110 5.1"),
    ("name that is no token", GET + b"X(: a\r\n\r\n", 400, "9110 5.1"),
    ("line without colon", GET + b"X\r\n\r\n", 400, "9112 5"),
    ("tab before the colon", GET + b"X\t: a\r\n\r\n", 400, "9112 5.1"),
    ("NUL in a name", GET + b"X\0: a\r\n\r\n", 400, "9110 5.1"),
    ("byte over 0x7f in a name", GET + b"X\xff: a\r\n\r\n", 400, "9110 5.1"),
    ("bare CR in a name", GET + b"X\ra: b\r\n\r\n", 400, "9112 2.2"),
    ("obs-fold with a tab", GET + b"X: a\r\n\tb\r\n\r\n", 400, "9112 5.2"),
    ("fold that hides a coding", POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400, "9112 5.2"),
    ("space before the colon of a coding", POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400, "9112 5.1"),
    ("malformed field in HTTP/1.0", b"GET / HTTP/1.0\r\nX : a\r\n\r\n", 400, "9112 5.1"),
    ("obs-fold", GET + b"X: a\r\n b\r\n\r\n", 400, "9112 5.2"),
    ("fold before the first field", b"GET / HTTP/1.1\r\n X: a\r\n" + H + b"\r\n", 400, "9112 2.2"),
    ("no Host", b"GET / HTTP/1.1\r\n\r\n", 400, "9112 3.2"),
    ("two Hosts", GET + H + b"\r\n", 400, "9112 3.2"),
    ("empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, "9110 7.2"),
    ("Host that is none", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "9110 7.2"),
    ("Host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "9110 7.2"),
    ("Host with userinfo", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, "9110 7.2"),
    ("Host with a bad port", b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400, "9110 7.2"),
    ("two Hosts in HTTP/1.0", b"GET / HTTP/1.0\r\n" + H + H + b"\r\n", 400, "9112 3.2"),
    ("Host that is a list", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, "9110 7.2"),
    ("Host with a port that is no number", b"GET / HTTP/1.1\r\nHost: a:8x\r\n\r\n", 400, "9110 7.2"),
    ("Host with two ports", b"GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n", 400, "9110 7.2"),
    ("Host that is a port", b"GET / HTTP/1.1\r\nHost: :80\r\n\r\n", 400, "9110 7.2"),
    ("Host of dots", b"GET / HTTP/1.1\r\nHost: ..\r\n\r\n", 400, "9110 7.2"),
    ("Host with an open bracket", b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, "9110 7.2"),
    ("Host with more after the bracket", b"GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", 400, "3986 3.2.2"),
    ("Host with digits after the bracket", b"GET / HTTP/1.1\r\nHost: [::1]x80\r\n\r\n", 400, "3986 3.2.2"),
    ("Host with no address in its brackets", b"GET / HTTP/1.1\r\nHost: [...]\r\n\r\n", 400, "3986 3.2.2"),
    ("byte over 0x7f in Host", b"GET / HTTP/1.1\r\nHost: a\xff\r\n\r\n", 400, "9110 7.2"),
    ("two Content-Lengths that agree", POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na", 400, "9112 6.3"),
    ("two Content-Lengths that differ", POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400, "9112 6.3"),
    ("list in Content-Length", POST + b"Content-Length: 1, 1\r\n\r\na", 400, "9112 6.3"),
    ("sign in Content-Length", POST + b"Content-Length: +1\r\n\r\na", 400, "9110 8.6"),
    ("negative Content-Length", POST + b"Content-Length: -1\r\n\r\n", 400, "9110 8.6"),
    ("hex Content-Length", POST + b"Content-Length: 0x1\r\n\r\na", 400, "9110 8.6"),
    ("empty Content-Length", POST + b"Content-Length:\r\n\r\n", 400, "9110 8.6"),
    ("list of lengths that differ", POST + b"Content-Length: 1, 2\r\n\r\na", 400, "9112 6.3"),
    ("comma after Content-Length", POST + b"Content-Length: 1,\r\n\r\na", 400, "9110 8.6"),
    ("blank in Content-Length", POST + b"Content-Length: 1 0\r\n\r\na", 400, "9110 8.6"),
    ("fraction in Content-Length", POST + b"Content-Length: 1.0\r\n\r\na", 400, "9110 8.6"),
    ("underscore in Content-Length", POST + b"Content-Length: 1_0\r\n\r\na", 400, "9110 8.6"),
    ("quoted Content-Length", POST + b'Content-Length: "1"\r\n\r\na', 400, "9110 8.6"),
    ("Content-Length of 19 digits", POST + b"Content-Length: 1000000000000000000\r\n\r\na", 400, "SECURITY 1.1"),
    ("two Content-Lengths in HTTP/1.0", b"POST / HTTP/1.0\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", 400, "9112 6.3"),
    ("Content-Length past 64 bits", POST + b"Content-Length: 18446744073709551617\r\n\r\na", 400, "9112 6.3"),
    ("both length and coding", POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "9112 6.1"),
    ("both, the other way round", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400, "9112 6.1"),
    ("two codings in two lines", POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "9112 6.1"),
    ("chunked twice", POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400, "9112 6.1"),
    ("chunked is not last", POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400, "9112 6.3"),
    ("gzip, chunked", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "9112 6.1"),
    ("gzip,chunked", POST + b"Transfer-Encoding: gzip,chunked\r\n\r\n0\r\n\r\n", 501, "9112 6.1"),
    ("deflate, chunked", POST + b"Transfer-Encoding: deflate, chunked\r\n\r\n0\r\n\r\n", 501, "9112 6.1"),
    ("gzip", POST + b"Transfer-Encoding: gzip\r\n\r\n", 501, "9112 6.1"),
    ("compress", POST + b"Transfer-Encoding: compress\r\n\r\n", 501, "9112 6.1"),
    ("identity", POST + b"Transfer-Encoding: identity\r\n\r\n", 501, "9112 6.1"),
    ("empty coding", POST + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n", 400, "9112 6.1"),
    ("chunked and a comma", POST + b"Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", 400, "9112 6.1"),
    ("comma before chunked", POST + b"Transfer-Encoding: , chunked\r\n\r\n0\r\n\r\n", 400, "9112 6.1"),
    ("chunked with a parameter", POST + b"Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n", 400, "9112 6.1"),
    ("two codings, the second unknown", POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n", 400, "9112 6.1"),
    ("xchunked", POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400, "9112 6.1"),
    ("quoted chunked", POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', 400, "9112 6.1"),
    ("vertical tab before chunked", POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400, "9110 5.5"),
    ("coding in HTTP/1.0", b"POST / HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "9112 6.1"),
    ("both on GET", GET + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "9112 6.1"),
    ("coding in HTTP/1.0 with a length", b"POST / HTTP/1.0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "9112 6.1"),
    ("expectation that we do not know", POST + b"Content-Length: 1\r\nExpect: 200-ok\r\n\r\na", 417, "9110 10.1.1"),
    ("a known expectation and another", POST + b"Content-Length: 1\r\nExpect: 100-continue, x\r\n\r\na", 417, "9110 10.1.1"),
    ("a body over the limit that waits for 100", POST + b"Content-Length: 65537\r\nExpect: 100-continue\r\n\r\n", 413, "9110 10.1.1"),
    ("Connection names Host", GET + b"Connection: host\r\n\r\n", 400, "9110 7.6.1"),
    ("Connection names Authorization", GET + b"Authorization: x\r\nConnection: authorization\r\n\r\n", 400, "9110 7.6.1"),
    ("Connection names Cookie", GET + b"Cookie: x\r\nConnection: close, Cookie\r\n\r\n", 400, "9110 7.6.1"),
    ("Connection names Content-Length", POST + b"Content-Length: 1\r\nConnection: content-length\r\n\r\na", 400, "9110 7.6.1"),
    ("Connection names Transfer-Encoding", POST + b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "9110 7.6.1"),
    ("Connection names X-Forwarded-For", GET + b"X-Forwarded-For: x\r\nConnection: x-forwarded-for\r\n\r\n", 400, "9110 7.6.1"),
    ("Connection names Host in its second line", GET + b"Connection: keep-alive\r\nConnection: ,host\r\n\r\n", 400, "9110 7.6.1"),
    ("Connection names a Content-Length that is not there", GET + b"Connection: content-length\r\n\r\n", 400, "SECURITY 1.1"),
    ("Connection names an Authorization that is not there", GET + b"Connection: authorization\r\n\r\n", 400, "SECURITY 1.1"),
    ("Connection names an X-Forwarded-For that we set", GET + b"Connection: x-forwarded-for\r\n\r\n", 400, "SECURITY 1.1"),
    ("Connection names the Host of HTTP/1.0 without one", b"GET / HTTP/1.0\r\nConnection: host\r\n\r\n", 400, "SECURITY 1.1"),
    ("request line too long", b"GET /" + b"a" * 8200 + b" HTTP/1.1\r\n" + H + b"\r\n", 414, "9110 15.5.15"),
    ("field too long", GET + b"X: " + b"a" * 8200 + b"\r\n\r\n", 431, "6585 5"),
    ("head too large", GET + (b"X: " + b"a" * 8000 + b"\r\n") * 5 + b"\r\n", 431, "6585 5"),
    ("too many fields", GET + b"X: a\r\n" * 101 + b"\r\n", 431, "6585 5"),
    ("one field too many", GET + b"X: a\r\n" * 100 + b"\r\n", 431, "6585 5"),
    ("request line that does not end", b"GET /" + b"a" * 20000, 414, "9110 15.5.15"),
    ("method that does not end", b"A" * 20000, 414, "9110 15.5.15"),
    ("field that does not end", GET + b"X: " + b"a" * 20000, 431, "6585 5"),
    ("name that does not end", GET + b"a" * 20000, 431, "6585 5"),
    ("body over the limit", POST + b"Content-Length: 65537\r\n\r\n", 413, "9110 15.5.14"),
    ("body over the limit by its length alone", POST + b"Content-Length: 999999999999999999\r\n\r\n", 413, "9110 15.5.14"),
]

# Refused while the body flows: the head has gone upstream by then, the request never becomes a whole one.
CUT = [
    ("chunk size with 0x", CHUNKED + b"0x1\r\na\r\n0\r\n\r\n", 400, "9112 7.1"),
    ("chunk size with a sign", CHUNKED + b"+1\r\na\r\n0\r\n\r\n", 400, "9112 7.1"),
    ("empty chunk size", CHUNKED + b"\r\na\r\n0\r\n\r\n", 400, "9112 7.1"),
    ("negative chunk size", CHUNKED + b"-1\r\na\r\n0\r\n\r\n", 400, "9112 7.1"),
    ("blank before the size", CHUNKED + b" 1\r\na\r\n0\r\n\r\n", 400, "9112 7.1"),
    ("a second number after the size", CHUNKED + b"1 1\r\na\r\n0\r\n\r\n", 400, "9112 7.1"),
    ("a word after the size", CHUNKED + b"1 a\r\na\r\n0\r\n\r\n", 400, "9112 7.1"),
    ("size that is no number", CHUNKED + b"g\r\na\r\n0\r\n\r\n", 400, "9112 7.1"),
    ("size with a fraction", CHUNKED + b"1.0\r\na\r\n0\r\n\r\n", 400, "9112 7.1"),
    ("underscore in the size", CHUNKED + b"1_0\r\na\r\n0\r\n\r\n", 400, "9112 7.1"),
    ("extension without a size", CHUNKED + b";a=b\r\na\r\n0\r\n\r\n", 400, "9112 7.1"),
    ("NUL after the size", CHUNKED + b"1\0\r\na\r\n0\r\n\r\n", 400, "9112 7.1"),
    ("chunk size of 17 digits", CHUNKED + b"00000000000000001\r\na\r\n0\r\n\r\n", 400, "9112 7.1"),
    ("chunk size past 64 bits", CHUNKED + b"fffffffffffffffff\r\na\r\n0\r\n\r\n", 400, "9112 7.1"),
    ("bare LF after the size", CHUNKED + b"1\na\r\n0\r\n\r\n", 400, "9112 7.1"),
    ("data longer than its size", CHUNKED + b"1\r\nab\r\n0\r\n\r\n", 400, "9112 7.1"),
    ("bare LF after the data", CHUNKED + b"1\r\na\n0\r\n\r\n", 400, "9112 7.1"),
    ("bare CR after the size", CHUNKED + b"1\ra\r\n0\r\n\r\n", 400, "9112 7.1"),
    ("CR CR LF after the size", CHUNKED + b"1\r\r\na\r\n0\r\n\r\n", 400, "9112 7.1"),
    ("bare CR after the data", CHUNKED + b"1\r\na\r0\r\n\r\n", 400, "9112 7.1"),
    ("data without an end", CHUNKED + b"1\r\na0\r\n\r\n", 400, "9112 7.1"),
    ("bare LF after the last size", CHUNKED + b"0\n\r\n", 400, "9112 7.1"),
    ("bare LF ends the body", CHUNKED + b"1\r\na\r\n0\r\n\n", 400, "9112 7.1"),
    ("extension too long", CHUNKED + b"1;" + b"x" * 300 + b"\r\na\r\n0\r\n\r\n", 400, "9112 7.1.1"),
    ("control byte in an extension", CHUNKED + b"1;\x01\r\na\r\n0\r\n\r\n", 400, "9112 7.1.1"),
    ("DEL in an extension", CHUNKED + b"1;a\x7f\r\na\r\n0\r\n\r\n", 400, "9112 7.1.1"),
    ("bare LF in an extension", CHUNKED + b"1;a\nb\r\na\r\n0\r\n\r\n", 400, "9112 7.1.1"),
    ("bare CR in an extension", CHUNKED + b"1;a\rb\r\na\r\n0\r\n\r\n", 400, "9112 7.1.1"),
    ("extensions too long together", CHUNKED + (b"1;" + b"x" * 200 + b"\r\na\r\n") * 21 + b"0\r\n\r\n", 400, "9112 7.1.1"),
    ("extension of the last chunk too long", CHUNKED + b"0;" + b"x" * 300 + b"\r\n\r\n", 400, "9112 7.1.1"),
    ("Content-Length in the trailers", CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n", 400, "9110 6.5.1"),
    ("Host in the trailers", CHUNKED + b"0\r\nHost: b\r\n\r\n", 400, "9110 6.5.1"),
    *((f"{name.decode()} in the trailers", CHUNKED + b"1\r\na\r\n0\r\n" + name + b": x\r\n\r\n", 400, "9110 6.5.1")
      for name in (b"Transfer-Encoding", b"Connection", b"Trailer", b"TE", b"Upgrade", b"Expect", b"Authorization", b"Proxy-Authorization",
                   b"Cookie")),
    ("bare LF in the trailers", CHUNKED + b"0\r\nX: a\n\r\n", 400, "9112 7.1.2"),
    ("NUL in the trailers", CHUNKED + b"0\r\nX: a\0\r\n\r\n", 400, "9112 7.1.2"),
    ("obs-fold in the trailers", CHUNKED + b"0\r\nX: a\r\n b\r\n\r\n", 400, "9112 7.1.2"),
    ("too many trailers", CHUNKED + b"0\r\n" + b"X: a\r\n" * 33 + b"\r\n", 400, "SECURITY 1.1"),
    ("trailers that do not end", CHUNKED + b"0\r\nX: " + b"a" * 20000, 400, "SECURITY 1.1"),
    ("malformed trailer", CHUNKED + b"0\r\nbad name: x\r\n\r\n", 400, "9112 7.1.2"),
    ("trailers too large", CHUNKED + b"0\r\n" + (b"X: " + b"a" * 1000 + b"\r\n") * 5 + b"\r\n", 400, "9112 7.1.2"),
    ("chunked body over the limit", CHUNKED + (b"4000\r\n" + b"a" * 0x4000 + b"\r\n") * 5 + b"0\r\n\r\n", 413, "9110 15.5.14"),
    ("body that does not come", POST + b"Content-Length: 5\r\n\r\nab", 408, "9110 15.5.9"),
    ("chunk that does not come", CHUNKED + b"5\r\nab", 408, "9110 15.5.9"),
    ("trailers that do not come", CHUNKED + b"0\r\nX: a\r\n", 408, "9110 15.5.9"),
]

# Accepted, with what the origin must and must not get.
FORWARDED = [
    ("an empty line first", b"\r\n" + GET + b"\r\n", [b"GET / HTTP/1.1\r\n", b"\r\nHost: a\r\n"], [], "9112 2.2"),
    ("HTTP/1.0 without Host", b"GET / HTTP/1.0\r\n\r\n", [b"GET / HTTP/1.1\r\n"], [], "9112 3.2"),
    ("a method that nobody knows", b"FROBNICATE /x HTTP/1.1\r\n" + H + b"\r\n", [b"FROBNICATE /x HTTP/1.1\r\n"], [], "9110 9.1"),
    ("methods are case-sensitive", b"get / HTTP/1.1\r\n" + H + b"\r\n", [b"get / HTTP/1.1\r\n"], [], "9110 9.1"),
    ("absolute-form without a path", b"GET http://b?q HTTP/1.1\r\n" + H + b"\r\n", [b"GET /?q HTTP/1.1\r\n", b"\r\nHost: b\r\n"], [], "9112 3.2.1"),
    ("an IPv6 literal with a port", b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", [b"\r\nHost: [::1]:80\r\n"], [], "9110 7.2"),
    ("an empty query", b"GET /a? HTTP/1.1\r\n" + H + b"\r\n", [b"GET /a? HTTP/1.1\r\n"], [], "3986 3.4"),
    ("dots in the query stay", b"GET /a?b=/../c//d HTTP/1.1\r\n" + H + b"\r\n", [b"GET /a?b=/../c//d "], [], "3986 3.4"),
    ("absolute-form wins over Host", b"GET http://b/x HTTP/1.1\r\n" + H + b"\r\n", [b"GET /x ", b"\r\nHost: b\r\n"], [b"Host: a"], "9112 3.2.2"),
    ("host in lower case", b"GET / HTTP/1.1\r\nHost: ExAmPle\r\n\r\n", [b"\r\nHost: example\r\n"], [], "9110 4.2.3"),
    ("dots and slashes", b"GET /a/./b//c/../d HTTP/1.1\r\n" + H + b"\r\n", [b"GET /a/b/d "], [], "3986 6.2.2"),
    ("unreserved bytes are decoded", b"GET /%7eu%41?q=%41 HTTP/1.1\r\n" + H + b"\r\n", [b"GET /~uA?q=%41 "], [], "3986 6.2.2.2"),
    ("hex in upper case", b"GET /%e4%b8%ad HTTP/1.1\r\n" + H + b"\r\n", [b"GET /%E4%B8%AD "], [], "3986 6.2.2.1"),
    ("hop-by-hop fields", GET + b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
     [], [b"X-Hop", b"Keep-Alive", b"TE:", b"Upgrade", b"HTTP2-Settings", b"Connection"], "9110 7.6.1"),
    ("names with an underscore", GET + b"X_Forwarded_For: 1.2.3.4\r\n\r\n", [], [b"X_Forwarded_For", b"1.2.3.4"], "SECURITY 1.1"),
    ("a length with an underscore frames nothing", POST + b"Content_Length: 5\r\nContent-Length: 2\r\n\r\nab",
     [b"Content-Length: 2\r\n", b"\r\n\r\nab"], [b"Content_Length"], "SECURITY 1.1"),
    ("a coding with an underscore frames nothing", POST + b"Transfer_Encoding: chunked\r\nContent-Length: 2\r\n\r\nab",
     [b"Content-Length: 2\r\n", b"\r\n\r\nab"], [b"chunked"], "SECURITY 1.1"),
    ("the fixed hop-by-hop fields without Connection", GET + b"Keep-Alive: 5\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\nTrailer: X\r\n"
     b"Upgrade: websocket\r\nProxy-Authorization: x\r\n\r\n",
     [], [b"Keep-Alive", b"Proxy-Connection", b"TE:", b"Trailer", b"Upgrade", b"Proxy-Authorization"], "9110 7.6.1"),
    ("empty members of Connection", GET + b"Connection: , ,\tX-Hop ,\r\nX-Hop: 1\r\nX-End: 1\r\n\r\n", [b"X-End: 1\r\n"], [b"X-Hop"], "9110 5.6.1"),
    ("Proxy", GET + b"Proxy: http://evil\r\n\r\n", [], [b"evil"], "SECURITY 1.4"),
    ("what a client says of others", GET + b"X-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\nVia: 1.0 x\r\n\r\n",
     [b"X-Forwarded-For: 127.0.0.1\r\n", b"X-Forwarded-Proto: http\r\n", b"Via: 1.1 tidegate\r\n"], [b"1.2.3.4", b"1.0 x"], "7239 8.1"),
    ("leading zeros in Content-Length", POST + b"Content-Length: 0002\r\n\r\nab", [b"Content-Length: 2\r\n", b"\r\n\r\nab"], [], "9110 8.6"),
    ("many leading zeros", POST + b"Content-Length: " + b"0" * 40 + b"2\r\n\r\nab", [b"Content-Length: 2\r\n", b"\r\n\r\nab"], [], "9110 8.6"),
    ("length of nothing", POST + b"Content-Length: 0\r\n\r\n", [b"Content-Length: 0\r\n"], [b"Transfer-Encoding"], "9110 8.6"),
    ("chunked in any case", POST + b"TRANSFER-encoding:\t ChUnKeD \r\n\r\n0\r\n\r\n", [b"\r\nTransfer-Encoding: chunked\r\n"], [b"ChUnKeD"], "9112 7"),
    ("sizes in upper case and with zeros", CHUNKED + b"0A\r\n0123456789\r\n000\r\n\r\n", [b"a\r\n0123456789\r\n0\r\n\r\n"], [], "9112 7.1"),
    ("a size of 16 digits", CHUNKED + b"0000000000000001\r\na\r\n0\r\n\r\n", [b"\r\n\r\n1\r\na\r\n0\r\n\r\n"], [], "SECURITY 1.1"),
    ("blanks around an extension", CHUNKED + b"1 ; a = \"b;c\"\r\na\r\n0\r\n\r\n", [b"\r\n\r\n1\r\na\r\n0\r\n\r\n"], [b"b;c"], "9112 7.1.1"),
    ("HTTP/1.0 with a length", b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nab", [b"Content-Length: 2\r\n", b"\r\n\r\nab"], [], "9112 6.3"),
    ("HTTP/1.0 with an expectation", b"POST / HTTP/1.0\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nab", [b"\r\n\r\nab"], [b"Expect"], "9110 10.1.1"),
    ("an expectation with its body", POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\nab", [b"\r\n\r\nab"], [b"Expect"], "9110 10.1.1"),
    ("chunks, extensions and trailers", CHUNKED + b"1;a=b\r\na\r\n2\r\nbc\r\n0\r\nX-T: 1\r\n\r\n",
     [b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"], [b"X-T", b"a=b"], "9112 7.1"),
    ("a body on GET", GET + b"Content-Length: 2\r\n\r\nab", [b"Content-Length: 2\r\n", b"\r\n\r\nab"], [], "9110 9.3.1"),
    ("bytes over 0x7f in a value", GET + b"X: \xff\xfe\r\n\r\n", [b"X: \xff\xfe\r\n"], [], "9110 5.5"),
    ("a tab in a value", GET + b"X: a\tb\r\n\r\n", [b"X: a\tb\r\n"], [], "9110 5.5"),
    ("every byte of a token", GET + b"!#$%&'*+-.^`|~09azAZ: x\r\n\r\n", [b"!#$%&'*+-.^`|~09azAZ: x\r\n"], [], "9110 5.6.2"),
    ("a field twice, in order", GET + b"X: 1\r\nY: 2\r\nX: 3\r\n\r\n", [b"X: 1\r\nY: 2\r\nX: 3\r\n"], [], "9110 5.3"),
    ("a request line of nearly 8 KiB", b"GET /" + b"a" * 8100 + b" HTTP/1.1\r\n" + H + b"\r\n", [b"GET /" + b"a" * 8100 + b" "], [], "9112 3"),
    ("a field of nearly 8 KiB", GET + b"X: " + b"a" * 8100 + b"\r\n\r\n", [b"X: " + b"a" * 8100 + b"\r\n"], [], "SECURITY 1.2"),
    ("a head of nearly 32 KiB", GET + (b"X: " + b"a" * 8000 + b"\r\n") * 4 + b"\r\n", [(b"X: " + b"a" * 8000 + b"\r\n") * 4], [], "SECURITY 1.2"),
    ("a hundred fields", GET + b"X: a\r\n" * 99 + b"\r\n", [b"X: a\r\n" * 99], [], "SECURITY 1.2"),
    ("a body of the limit", POST + b"Content-Length: 65536\r\n\r\n" + b"a" * 65536, [b"\r\n\r\n" + b"a" * 65536], [], "SECURITY 1.2"),
    ("trailers of nearly 4 KiB", CHUNKED + b"0\r\nX: " + b"a" * 4000 + b"\r\n\r\n", [b"\r\n\r\n0\r\n\r\n"], [b"aaaa"], "SECURITY 1.1"),
    ("32 trailers", CHUNKED + b"0\r\n" + b"X-T: a\r\n" * 32 + b"\r\n", [b"\r\n\r\n0\r\n\r\n"], [b"X-T"], "SECURITY 1.1"),
    ("extensions of nearly 4 KiB", CHUNKED + (b"1;" + b"x" * 200 + b"\r\na\r\n") * 20 + b"0\r\n\r\n", [], [b"xxxx"], "SECURITY 1.1"),
    ("empty value and blanks", GET + b"X:\r\nY: \t a b \t\r\n\r\n", [b"X: \r\n", b"Y: a b\r\n"], [], "9112 5.1"),
]


def ids(table):
    return [row[0] for row in table]


@pytest.mark.parametrize("name,data,status,section", REFUSED, ids=ids(REFUSED))
def test_refused(gw, origin, name, data, status, section):
    origin.reset()
    with Client(gw.port) as client:
        client.send(data + GET + b"\r\n")
        answer = client.answer("HEAD" if data.startswith(b"HEAD") else "GET")
        assert answer.status == status, section
        assert answer.field("Connection") == "close"
        assert client.rest() == (b"", "eof"), "nothing after a refused request is read, and the connection ends"
    assert origin.seen == b"", "nothing of it reaches the origin"


@pytest.mark.parametrize("pieces", (1, 7), ids=("in one piece", "in pieces"))
@pytest.mark.parametrize("name,data,status,section", CUT, ids=ids(CUT))
def test_cut(gw, origin, name, data, status, section, pieces):
    origin.reset()
    smuggled = b"" if status == 408 else GET + b"\r\n"
    whole = data + smuggled
    head = whole.index(b"\r\n\r\n") + 4
    with Client(gw.port) as client:
        if pieces == 1:
            client.send(whole)
        else:  # the head goes upstream first, then the body comes byte by byte where it matters
            client.send(whole[:head], pause=0.01)
            client.send(*(whole[at:at + 1] for at in range(head, min(head + pieces, len(whole)))), pause=0.001)
            client.send(whole[head + pieces:])
        answer = client.answer()
        assert answer.status == status, section
        assert answer.field("Connection") == "close"
        assert client.rest() == (b"", "eof")
    origin.settle()
    assert not origin.received, "never a whole request upstream"


@pytest.mark.parametrize("name,data,parts,absent,section", FORWARDED, ids=ids(FORWARDED))
def test_forwarded(gw, origin, name, data, parts, absent, section):
    origin.reset()
    with Client(gw.port) as client:
        client.send(data)
        answer = client.answer()
        assert (answer.status, answer.body) == (200, b"ok"), section
        if b" HTTP/1.0\r\n" in data or b"Connection: close" in data:
            assert answer.field("Connection") == "close" and client.rest() == (b"", "eof")
            assert len(origin.received) == 1
        else:  # gateway and client agree where the request ended
            client.send(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.answer().status == 200
            assert len(origin.received) == 2 and origin.received[1].startswith(b"GET /next HTTP/1.1\r\n")
    request = origin.received[0]
    for part in parts:
        assert part in request, (section, request)
    for part in absent:
        assert part not in request, (section, request)
    assert request.count(b"\r\nHost: ") == 1 and b"\r\nVia: 1.1 tidegate\r\n" in request


def test_a_request_is_the_same_however_it_is_cut(gw, origin):
    data = POST + b"Transfer-Encoding: chunked\r\nX: y\r\n\r\n3;e=f\r\nabc\r\n2\r\nde\r\n0\r\nT: u\r\n\r\n"
    origin.reset()
    for at in range(1, len(data)):
        with Client(gw.port) as client:
            client.send(data[:at], pause=0.003)
            client.send(data[at:])
            assert client.answer().status == 200, data[:at]
    assert len(origin.received) == len(data) - 1
    heads = {request.partition(b"\r\n\r\n")[0] for request in origin.received}
    assert len(heads) == 1 and {body_of(request) for request in origin.received} == {b"abcde"}


def test_a_request_may_come_byte_by_byte(gw, origin):
    origin.reset()
    data = POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    with Client(gw.port) as client:
        client.send(*(data[at:at + 1] for at in range(len(data))), pause=0.001)
        assert client.answer().status == 200
    assert body_of(origin.received[0]) == b"abc"


# ---- asterisk-form, Expect, Upgrade

def test_asterisk_form_is_for_options(gw, origin):
    origin.reset()
    with Client(gw.port) as client:
        client.send(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.answer().status in (200, 404), "well-formed: answered, or no route has it"
        client.send(GET + b"\r\n")
        assert client.answer().status == 200
    assert all(request.startswith((b"OPTIONS * ", b"GET / ")) for request in origin.received)


def test_a_client_that_waits_for_100_gets_it_from_us(gw, origin):
    origin.reset()
    with Client(gw.port) as client:
        client.send(POST + b"Content-Length: 5\r\nExpect: 100-Continue\r\n\r\n")
        assert client.answer().status == 100
        client.send(b"hello")
        assert client.answer().status == 200
        client.send(GET + b"\r\n")
        assert client.answer().status == 200
    assert origin.received[0].endswith(b"\r\n\r\nhello") and b"Expect" not in origin.received[0]


def test_no_100_for_a_body_that_is_there_or_for_none(gw, origin):
    origin.reset()
    for data in (POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\nab", GET + b"Expect: 100-continue\r\n\r\n",
                 b"POST / HTTP/1.0\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nab"):
        with Client(gw.port) as client:
            client.send(data)
            assert client.answer().status == 200, data


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"TLS/1.0"])
def test_an_upgrade_that_no_route_allows_is_ignored(gw, origin, protocol):
    origin.reset()
    with Client(gw.port) as client:
        client.send(GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + protocol + b"\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
        assert client.answer().status == 200
    assert not any(name in origin.received[0].lower() for name in (b"upgrade", b"http2-settings", b"\r\nconnection:"))


# ---- the connection

def test_keep_alive_of_both_versions(gw, origin):
    origin.reset()
    for data, field, stays in [
        (GET + b"\r\n", None, True),
        (GET + b"Connection: close\r\n\r\n", "close", False),
        (GET + b"Connection: keep-alive, CLOSE\r\n\r\n", "close", False),
        (b"GET / HTTP/1.0\r\n\r\n", "close", False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "keep-alive", True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", "close", False),
    ]:
        with Client(gw.port) as client:
            client.send(data)
            assert client.answer().field("Connection") == field, data
            if stays:
                client.send(data)
                assert client.answer().status == 200
                assert client.is_open()
            else:
                assert client.rest() == (b"", "eof"), data


def test_nothing_is_read_after_close(gw, origin):
    origin.reset()
    with Client(gw.port) as client:
        client.send(GET + b"Connection: close\r\n\r\n" + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.answer().status == 200
        assert client.rest() == (b"", "eof")
    assert len(origin.received) == 1


def test_pipelined_requests_go_out_one_by_one_and_are_answered_in_order(gw, origin):
    at_work, most = [], []

    def slowly(_, request):
        at_work.append(1)
        most.append(len(at_work))
        number = int(request.split(b" ")[1][1:])
        time.sleep(0.03 if number % 2 == 0 else 0)
        at_work.pop()
        body = b"answer %d" % number
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    origin.reset(slowly)
    with Client(gw.port) as client:
        client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(10)))
        assert [client.answer().body for _ in range(10)] == [b"answer %d" % number for number in range(10)]
    assert max(most) == 1


def test_many_requests_behind_a_body_in_one_piece(gw, origin):
    origin.reset()
    with Client(gw.port) as client:
        client.send(POST + b"Content-Length: 60000\r\n\r\n" + b"a" * 60000 + (GET + b"\r\n") * 1500)
        assert all(client.answer().status == 200 for _ in range(1501))
        assert client.is_open()
    assert len(origin.received) == 1501


def test_a_bad_request_behind_good_ones_takes_none_of_their_answers(gw, origin):
    origin.reset()
    with Client(gw.port) as client:
        client.send((GET + b"\r\n") * 3 + GET + b"X : y\r\n\r\n" + GET + b"\r\n")
        assert [client.answer().status for _ in range(4)] == [200, 200, 200, 400]
        assert client.rest() == (b"", "eof")
    assert len(origin.received) == 3


# ---- time

def timed(client):
    start = time.monotonic()
    answer = client.answer()
    return answer, time.monotonic() - start


@pytest.mark.parametrize("data", [b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n", b"\r\n"],
                         ids=["a byte", "a line", "fields", "an empty line"])
def test_a_head_that_does_not_come_is_408(gw, origin, data):
    origin.reset()
    with Client(gw.port) as client:
        client.send(data)
        answer, seconds = timed(client)
        assert answer.status == 408 and answer.field("Connection") == "close" and 0.3 < seconds < 2
        assert client.rest() == (b"", "eof")
    assert origin.seen == b""


def test_the_time_for_a_head_is_one_for_all_its_bytes(gw, origin):
    origin.reset()
    with Client(gw.port) as client:
        start = time.monotonic()
        client.socket.settimeout(0.1)
        got = b""
        for byte in GET + b"X: " + b"a" * 60:
            try:
                client.send(bytes([byte]))
                client.fill()
            except TimeoutError:
                continue
            except (Cut, OSError):
                break
            got = client.data
            break
        assert got.startswith(b"HTTP/1.1 408 ") and time.monotonic() - start < 2


def test_the_time_for_a_head_holds_on_a_kept_connection(gw, origin):
    origin.reset()
    with Client(gw.port) as client:
        client.send(GET + b"\r\n")
        assert client.answer().status == 200
        client.send(b"GET / HT")
        answer, seconds = timed(client)
        assert answer.status == 408 and seconds < 2


def test_an_idle_connection_is_closed_without_a_word(gw, origin):
    origin.reset()
    with Client(gw.port) as client:
        assert client.rest() == (b"", "eof"), "nothing was asked: nothing is answered"
    with Client(gw.port) as client:
        client.send(GET + b"\r\n")
        assert client.answer().status == 200
        start = time.monotonic()
        assert client.rest() == (b"", "eof")
        assert 0.7 < time.monotonic() - start < 3, "keepalive_timeout"


def test_a_body_that_trickles_is_ended_for_its_rate(gw, origin):
    """SECURITY 1.2: at least 500 bytes a second, after 10 s. A byte in time for each idle timeout is not enough."""
    origin.reset()
    with Client(gw.port) as client:
        client.send(POST + b"Content-Length: 60000\r\n\r\n")
        client.socket.settimeout(0.2)
        end = time.monotonic() + 14
        try:
            while time.monotonic() < end:
                client.send(b"a")
                try:
                    client.fill()
                    break
                except TimeoutError:
                    continue
        except (Cut, OSError):
            pass
        assert client.data.startswith(b"HTTP/1.1 408 "), "14 s at 5 bytes a second, and the request still runs"


# ---- after an error

def test_an_answer_is_not_lost_to_a_client_that_still_sends(gw, origin):
    """Half-close and drain: a reset would take the answer from the client's buffer."""
    origin.reset()
    for _ in range(20):
        with Client(gw.port) as client:
            client.send(POST + b"Content-Length: 70000\r\n\r\n" + b"a" * 1000)
            time.sleep(0.005)
            client.send(b"a" * 40000)
            time.sleep(0.005)
            assert client.answer().status == 413
            assert client.rest() == (b"", "eof")
    assert origin.seen == b""


def send_until_closed(client, piece, pause, seconds):
    """Bytes that could be sent, and the time it took until the gateway would have no more."""
    start, sent = time.monotonic(), 0
    while time.monotonic() - start < seconds:
        try:
            sent += client.socket.send(piece)
        except TimeoutError:
            continue
        except OSError:
            return sent, time.monotonic() - start
        time.sleep(pause)
    raise AssertionError(f"still open after {seconds} s and {sent} bytes")


def test_draining_ends_after_two_seconds(gw, origin):
    origin.reset()
    with Client(gw.port) as client:
        client.send(GET + b"X : y\r\n\r\n")
        assert client.answer().status == 400
        _, seconds = send_until_closed(client, b"a", 0.05, 6)
        assert 1 < seconds < 4


def test_draining_ends_after_64_kib(gw, origin):
    origin.reset()
    with Client(gw.port) as client:
        client.send(GET + b"X : y\r\n\r\n")
        assert client.answer().status == 400
        _, seconds = send_until_closed(client, b"a" * 16384, 0.02, 6)
        assert seconds < 1, "the bytes end it, not the time"


def answer_early(client, origin, head):
    """The client has sent a part of its body when the origin answers; returns that connection of the origin."""
    client.send(head)
    origin.wait_for(lambda: b"aaaa" in origin.seen, "the first bytes of the upload")
    busy = next(c for c in origin.connections if c.unanswered)
    busy.socket.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
    return busy


def test_an_early_answer_ends_an_upload_without_a_known_end(gw, origin):
    origin.reset()
    with Client(gw.port) as client:
        busy = answer_early(client, origin, CHUNKED + b"4\r\naaaa\r\n")
        answer = client.answer()
        assert (answer.status, answer.body, answer.field("Connection")) == (403, b"no", "close")
        assert client.rest() == (b"", "eof")
    assert busy.ended.wait(5), "a request that is not whole ends its connection"


def test_the_rest_of_an_upload_that_was_answered_early_is_read_away(gw, origin):
    """Or the connection ends: never is the rest of a body taken for the next request."""
    origin.reset()
    with Client(gw.port) as client:
        busy = answer_early(client, origin, POST + b"Content-Length: 50\r\n\r\naaaa")
        answer = client.answer()
        assert (answer.status, answer.body) == (403, b"no")
        client.send(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".ljust(46, b"b") + b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
        if answer.field("Connection") == "close":
            assert client.rest()[1] == "eof"
        else:
            assert client.answer().body == b"ok"
            assert client.is_open()
            assert [request.split(b" ")[1] for request in origin.received] == [b"/next"]
    assert busy.ended.wait(5)
    assert b"smuggled" not in origin.seen


def test_a_client_that_goes_away_ends_its_request_upstream(gw, origin):
    origin.reset()
    client = Client(gw.port)
    client.send(POST + b"Content-Length: 60000\r\n\r\n" + b"a" * 1000)
    origin.wait_for(lambda: origin.seen.endswith(b"a" * 1000), "the first bytes of the upload")
    client.reset()
    origin.settle()
    assert not origin.received
    with Client(gw.port) as after:
        after.send(GET + b"\r\n")
        assert after.answer().status == 200


def test_a_body_cut_by_its_client_is_no_whole_request(gw, origin):
    origin.reset()
    for body in (b"Content-Length: 10\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n"):
        with Client(gw.port) as client:
            client.send(POST + body)
            client.socket.shutdown(1)
            _, how = client.rest()
            assert how != "open"
    origin.settle()
    assert not origin.received

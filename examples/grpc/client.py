"""client.py NAME: a client of gRPC, on the port where others speak JSON."""
import sys

import grpc
from server import message

with grpc.insecure_channel("localhost:8080") as channel:
    get = channel.unary_unary("/library.Library/Get", lambda request: request.SerializeToString(), message("library.Book").FromString)
    try:
        print(get(message("library.BookName", name=sys.argv[1]), timeout=5).title)
    except grpc.RpcError as failure:
        print(failure.code().name, failure.details())

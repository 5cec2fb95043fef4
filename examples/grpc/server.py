"""A gRPC server of the library, by python3-grpcio and python3-protobuf; without generated code: library.pb is all that it knows."""
import pathlib
import sys
import threading
import time
from concurrent import futures

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051"
pool = descriptor_pool.DescriptorPool()
for file in descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(__file__).with_name("library.pb").read_bytes()).file:
    pool.Add(file)
SERVICE = pool.FindServiceByName("library.Library")
SERVING = b"\x08\x01"  # grpc.health.v1.HealthCheckResponse { status: SERVING }


def message(kind, /, **fields):
    return message_factory.MessageFactory(pool).GetPrototype(pool.FindMessageTypeByName(kind))(**fields)


class Library(grpc.GenericRpcHandler):
    def __init__(self):
        self.lock, self.books = threading.Lock(), {}
        self.add("shelves/fiction", message("library.Book", title="Hopscotch", genre=1, pages=576), "1963-06-28T00:00:00Z")
        self.add("shelves/fiction", message("library.Book", title="Pedro P\u00e1ramo", genre=1, pages=124), "1955-03-19T00:00:00Z")
        self.add("shelves/fiction", message("library.Book", title="Residence on Earth", genre=2, pages=193), "1933-04-01T00:00:00Z")

    def service(self, details):
        if details.method == "/grpc.health.v1.Health/Check":
            return grpc.unary_unary_rpc_method_handler(lambda request, context: SERVING)
        service, name = details.method[1:].split("/")
        method = SERVICE.FindMethodByName(name) if service == SERVICE.full_name else None
        if method is None:
            return None
        make = grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
        return make(getattr(self, name.lower()), message(method.input_type.full_name).FromString, lambda answer: answer.SerializeToString())

    def add(self, parent, book, published=None):
        with self.lock:
            book.name = f"{parent}/books/{len(self.books) + 1}"
            if published:
                book.published.FromJsonString(published)
            self.books[book.name] = book
            return book

    def get(self, request, context):
        if request.name not in self.books:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no {request.name}")
        return self.books[request.name]

    def list(self, request, context):
        wanted = request.filter
        return message("library.Books", books=[
            book for name, book in sorted(self.books.items()) if name.startswith(request.parent + "/") and wanted.genre in (0, book.genre)
            and (wanted.max_pages == 0 or book.pages <= wanted.max_pages)])

    def create(self, request, context):
        if not request.book.title:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a book has a title")
        return self.add(request.parent, request.book)

    def delete(self, request, context):
        if self.books.pop(request.name, None) is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no {request.name}")
        return message("google.protobuf.Empty")

    def watch(self, request, context):
        for number, book in enumerate(list(self.books.values())[:3], 1):
            yield message("library.Visit", number=number, title=book.title)
            time.sleep(0.1)


if __name__ == "__main__":
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    server.add_generic_rpc_handlers((Library(),))
    server.add_insecure_port(ADDRESS)
    server.start()
    print("the library is open", flush=True)
    server.wait_for_termination()

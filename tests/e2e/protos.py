"""Descriptors that protoc makes, and messages by them, of Python's protobuf: another implementation than the gateway's."""
import random
import string
import subprocess

from gateway import ROOT
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# google/protobuf is Debian's; google/api/annotations.proto is Google's, as protobufjs brings it.
INCLUDES = ["/usr/include", str(ROOT / "tests/npm/node_modules/protobufjs")]


def compile_protos(folder, files, out="api.pb", includes=()):
    """{name: text} -> the path of a FileDescriptorSet with all imports."""
    for name, text in files.items():
        (folder / name).write_text(text)
    paths = [f"-I{path}" for path in (folder, *includes, *INCLUDES)]
    subprocess.run(["protoc", *paths, "--include_imports", f"--descriptor_set_out={folder / out}", *files], check=True, cwd=folder)
    return folder / out


class Messages:
    """messages["pkg.Name"] is the class of that message."""

    def __init__(self, path):
        self.pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file:
            self.pool.Add(file)
        self.factory = message_factory.MessageFactory(self.pool)

    def __getitem__(self, name):
        return self.factory.GetPrototype(self.pool.FindMessageTypeByName(name))


ALPHABET = string.ascii_letters + string.digits + ' "\\/\n\x01äß€😀'


def text(rng):
    return "".join(rng.choice(ALPHABET) for _ in range(rng.randrange(8)))


def scalar(rng, field):
    kind = field.type
    if kind == field.TYPE_BOOL:
        return rng.random() < 0.5
    if kind == field.TYPE_STRING:
        return text(rng)
    if kind == field.TYPE_BYTES:
        return rng.randbytes(rng.randrange(10))
    if kind == field.TYPE_ENUM:
        return rng.choice(field.enum_type.values).number
    if kind in (field.TYPE_DOUBLE, field.TYPE_FLOAT):
        return rng.choice([0.0, -1.5, 0.1, float("inf"), float("-inf"), rng.uniform(-1e6, 1e6), rng.random() * 10 ** rng.randrange(-30, 30)])
    bits = 64 if "64" in field_kind(field) else 32
    low, high = (0, 2 ** bits - 1) if field_kind(field)[0] in "uf" else (-2 ** (bits - 1), 2 ** (bits - 1) - 1)
    return rng.choice([low, high, 0, rng.randint(low, high), rng.randint(max(low, -9), 9)])


def field_kind(field):
    names = {value: name[5:].lower() for name, value in vars(type(field)).items() if name.startswith("TYPE_")}
    return names[field.type]


def fill_known(rng, message, name):
    """What not every value is valid in; False for other messages."""
    if name == "Timestamp":
        message.seconds, message.nanos = rng.randint(-62135596800, 253402300799), rng.choice([0, 1, 120000000, 999999999, 5000])
    elif name == "Duration":
        sign = rng.choice([1, -1])
        message.seconds, message.nanos = sign * rng.choice([0, 1, 315575999999]), sign * rng.choice([0, 1, 500000000])
    elif name == "FieldMask":
        message.paths.extend(rng.choice(["a", "big_number.odd_one", "x.y"]) for _ in range(rng.randrange(1, 3)))
    elif name == "Struct":
        message.update({text(rng): rng.choice([None, 1.5, "x", True, [1, None, {"y": []}], {"z": {}}]) for _ in range(rng.randrange(3))})
    elif name == "Value":
        message.string_value = text(rng)
    elif name == "ListValue":
        message.extend([1, "a", None, [], {"b": 2}])
    else:
        return False
    return True


def put_map(rng, message, field, depth):
    key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
    for _ in range(rng.randrange(3)):
        if value.message_type:
            fill(rng, getattr(message, field.name)[scalar(rng, key)], depth + 1)
        else:
            getattr(message, field.name)[scalar(rng, key)] = scalar(rng, value)


def fill(rng, message, depth=0):
    """A random message; no Any, and no NullValue outside of Value, which older versions print in their own way."""
    if message.DESCRIPTOR.file.package == "google.protobuf" and fill_known(rng, message, message.DESCRIPTOR.name):
        return message
    for field in message.DESCRIPTOR.fields:
        if rng.random() < (0.5 if depth == 0 else 0.25) or field.full_name.startswith("google.protobuf.Any"):
            continue
        if field.message_type and field.message_type.GetOptions().map_entry:
            if depth < 3:
                put_map(rng, message, field, depth)
        elif field.message_type and field.message_type.name != "Any" and depth < 3:
            repeated = field.label == field.LABEL_REPEATED
            for _ in range(rng.randrange(3) if repeated else 1):
                part = getattr(message, field.name).add() if repeated else getattr(message, field.name)
                part.SetInParent()
                fill(rng, part, depth + 1)
        elif not field.message_type:
            if field.label == field.LABEL_REPEATED:
                getattr(message, field.name).extend(scalar(rng, field) for _ in range(rng.randrange(4)))
            else:
                setattr(message, field.name, scalar(rng, field))
    return message


def messages_of(kind, count, seed):
    rng = random.Random(seed)
    for _ in range(count):
        yield fill(rng, kind())

"""Checks the C# that protoc generated: each file is in the namespace that its .proto
names, and there is a class for each envelope, each of its payloads and each message
within these. The C# is not compiled, which would need the .NET SDK and NuGet.

    csharp.py CSHARP_DIR DESCRIPTOR_SET BUNDLED_TOML
"""

import re
import sys
from pathlib import Path

import schema


def namespace_of(file) -> str:
    """Returns the C# namespace that the file sets."""
    namespace = file.GetOptions().csharp_namespace
    assert namespace, f"{file.name} sets no csharp_namespace"
    return namespace


def generated(csharp_dir: Path, file) -> str:
    """Returns the C# generated from the file."""
    stem = "".join(word.capitalize() for word in Path(file.name).stem.split("_"))
    path = csharp_dir.joinpath(*namespace_of(file).split("."), f"{stem}.cs")
    assert path.is_file(), f"{file.name} made no {path}"
    return path.read_text()


def reachable(message_type, found: dict) -> dict:
    """Returns the message and the project's own messages within it, by full name."""
    if message_type.full_name not in found and not schema.is_googles(message_type.file):
        found[message_type.full_name] = message_type
        for field in message_type.fields:
            if field.message_type is not None:
                reachable(field.message_type, found)
    return found


def check_class(csharp_dir: Path, message_type) -> None:
    text = generated(csharp_dir, message_type.file)
    pattern = rf"^\s*public sealed partial class {message_type.name} : pb::IMessage<"
    assert re.search(pattern, text, re.MULTILINE), f"no class {message_type.full_name}"


def main() -> None:
    csharp_dir, descriptor_set, bundled = sys.argv[1:]
    pool, own, envelopes = schema.load(descriptor_set, bundled)
    for name in own:
        file = pool.FindFileByName(name)
        declared = f"namespace {namespace_of(file)} {{"
        assert declared in generated(Path(csharp_dir), file), f"{name}: no {declared}"
    classes, event_count = {}, 0
    for name, envelope in envelopes.items():
        events, _ = schema.payloads(name, envelope)
        event_count += len(events)
        reachable(envelope, classes)
        assert all(event.message_type.full_name in classes for event in events)
    for message_type in classes.values():
        check_class(Path(csharp_dir), message_type)
    print(f"{len(own)} files, {event_count} events, {len(classes)} classes; generated, not compiled")


if __name__ == "__main__":
    main()

"""Pictures with their owner's mark inside, built byte by byte as the standards have it."""

import io
import json
import struct
import zlib

from tests.crawl.hosts import picture

XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">{}</rdf:RDF></x:xmpmeta>'
    '<?xpacket end="w"?>'
)
VOCABULARY = "http://ns.useplus.org/ldf/vocab/"
PLUS = 'xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/"'


def attribute(value: str) -> str:
    """XMP with the property as an attribute."""
    return XMP.format(f'<rdf:Description rdf:about="" {PLUS} plus:DataMining="{value}"/>')


def resource(value: str) -> str:
    """XMP with the property as an element that names a resource."""
    inner = f'<plus:DataMining rdf:resource="{value}"/>'
    return XMP.format(f'<rdf:Description rdf:about="" {PLUS}>{inner}</rdf:Description>')


def element(value: str) -> str:
    """XMP with the property as an element with text."""
    inner = f"<plus:DataMining>\n {value} </plus:DataMining>"
    return XMP.format(f'<rdf:Description rdf:about="" {PLUS}>{inner}</rdf:Description>')


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg(*segments: bytes, index: int = 0) -> bytes:
    """A JPEG with these segments in its head."""
    data = picture(index)
    return data[:2] + b"".join(segments) + data[2:]


def with_xmp(text: str, index: int = 0) -> bytes:
    return jpeg(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + text.encode()), index=index)


def with_extended_xmp(text: str, parts: int = 3) -> bytes:
    """A JPEG whose packet goes on in other segments, in the wrong order."""
    data, guid = text.encode(), b"0123456789ABCDEF0123456789ABCDEF"
    size = -(-len(data) // parts)
    segments = [
        segment(
            0xE1,
            b"http://ns.adobe.com/xmp/extension/\0"
            + guid
            + struct.pack(">II", len(data), at)
            + data[at : at + size],
        )
        for at in range(0, len(data), size)
    ]
    return jpeg(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"), *segments[::-1])


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, index: int = 0) -> bytes:
    """A PNG with these chunks behind its head."""
    data = picture(index, "PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def png_xmp(text: str, *, compressed: bool = False) -> bytes:
    body = zlib.compress(text.encode()) if compressed else text.encode()
    flags = bytes([compressed, 0])
    return png(chunk(b"iTXt", b"XML:com.adobe.xmp\0" + flags + b"\0\0" + body))


def webp(kind: bytes, data: bytes) -> bytes:
    """A WebP with this chunk at its end."""
    out = io.BytesIO(picture(0, "WEBP"))
    body = out.getvalue()[12:] + kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def gif(text: str) -> bytes:
    """A GIF with XMP in an application extension, before its end."""
    extension = b"\x21\xff\x0bXMP DataXMP" + text.encode()
    trailer = b"\x01" + bytes(range(255, -1, -1)) + b"\0"
    return picture(0, "GIF")[:-1] + extension + trailer + b"\x3b"


def gif_c2pa(data: bytes) -> bytes:
    """A GIF with a store in blocks of an application extension."""
    blocks = [data[at : at + 255] for at in range(0, len(data), 255)]
    body = b"".join(bytes([len(block)]) + block for block in blocks)
    extension = b"\x21\xff\x0bC2PA_GIF\x01\x00\x00" + body + b"\0"
    return picture(0, "GIF")[:-1] + extension + b"\x3b"


def box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data) + 8) + kind + data


def superbox(label: str, *boxes: bytes) -> bytes:
    description = box(b"jumd", bytes(16) + b"\x03" + label.encode() + b"\0")
    return box(b"jumb", description + b"".join(boxes))


def cbor(value: object) -> bytes:
    """Maps, lists, texts and small numbers."""
    if isinstance(value, dict):
        pairs = b"".join(cbor(key) + cbor(one) for key, one in value.items())
        return bytes([0xA0 + len(value)]) + pairs
    if isinstance(value, list):
        return bytes([0x80 + len(value)]) + b"".join(map(cbor, value))
    if isinstance(value, int):
        return bytes([value])
    text = str(value).encode()
    head = bytes([0x60 + len(text)]) if len(text) < 24 else bytes([0x78, len(text)])
    return head + text


def assertion(
    uses: dict[str, str], label: str = "cawg.training-mining", form: str = "cbor"
) -> bytes:
    """One training-mining assertion."""
    data = {"entries": {name: {"use": use} for name, use in uses.items()}}
    body = cbor(data) if form == "cbor" else json.dumps(data).encode()
    return superbox(label, box(form.encode(), body))


def store(*manifests: bytes) -> bytes:
    """A C2PA store of manifests, each of which is its assertions."""
    found = []
    for number, assertions in enumerate(manifests):
        thumbnail = superbox("c2pa.thumbnail", box(b"bidb", bytes(70_000)))
        inner = superbox("c2pa.assertions", thumbnail, assertions)
        claim = superbox("c2pa.claim", box(b"cbor", cbor({"alg": "sha256"})))
        found.append(superbox(f"urn:uuid:{number}", inner, claim))
    return superbox("c2pa", *found)


def jpeg_c2pa(data: bytes, index: int = 0) -> bytes:
    """A JPEG with a store in as many segments as it takes."""
    head, body = data[:8], data[8:]
    size = 60_000
    segments = [
        segment(0xEB, b"JP\0\1" + struct.pack(">I", number + 1) + head + body[at : at + size])
        for number, at in enumerate(range(0, len(body), size))
    ]
    return jpeg(*segments, index=index)

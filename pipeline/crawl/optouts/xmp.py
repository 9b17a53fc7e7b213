"""The property plus:DataMining in the XMP data of an image."""

from collections.abc import Iterator

from lxml import etree

from kd3_pipeline.crawl.optouts.forms import forms
from kd3_pipeline.crawl.optouts.signals import Signal

MAX_BYTES = 8 * 2**20  # of one packet
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
PROPERTY = "{http://ns.useplus.org/ldf/xmp/1.0/}DataMining"
FORM = forms("image")["plus:datamining"]


def mining_signals(packets: Iterator[bytes]) -> Iterator[Signal]:
    """What the packets of one image say of data mining."""
    for packet in packets:
        if b"DataMining" not in packet:
            continue
        if len(packet) > MAX_BYTES:
            text = f"XMP data of more than {MAX_BYTES:,} bytes, not read"
            yield Signal(FORM.kind, "XMP", text)
            continue
        for value in _values(packet):
            yield Signal(FORM.kind, f"XMP {FORM.name}", value, FORM.read(value))


def _values(packet: bytes) -> list[str]:
    # a packet that is cut or has rubbish in it still has its owner's mark
    parser = etree.XMLParser(
        resolve_entities=False, load_dtd=False, no_network=True, recover=True, remove_comments=True
    )
    try:
        root = etree.fromstring(packet[packet.find(b"<") :].rstrip(b"\0"), parser)
    except (etree.LxmlError, ValueError):
        return []
    if root is None:
        return []
    found: list[str] = []
    # of the image itself: an ingredient's description stands deeper
    for description in root.iter(f"{RDF}Description"):
        parent = description.getparent()
        if parent is not None and parent.tag != f"{RDF}RDF":
            continue
        found += [description.get(PROPERTY, "")]
        for one in description.iterchildren(PROPERTY):
            found += [one.get(f"{RDF}resource", ""), "".join(one.itertext())]
    return [value.strip() for value in found if value.strip()]

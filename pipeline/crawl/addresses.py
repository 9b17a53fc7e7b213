"""Addresses as they are asked for: as they are written, but for what no address may have."""

import re
from urllib.parse import quote, unquote_to_bytes, urljoin

from yarl import URL

# what the URL Standard leaves as it is in a path (and ^) and in a query, of what is no letter, no
# digit and not -._~; a server may sign any of it, and an escape is never decoded: %28 and ( are two
# addresses
PATH_KEPT = "!$%&'()*+,/:;=@[]^|"
QUERY_KEPT = "!$%&()*+,/:;=?@[\\]^`{|}"
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# letters before the path; a name has 253 at most as it goes over the wire, and the time that it
# takes to get it into that form grows with the square of what is written
LONGEST_AUTHORITY = 1000
# addresses that are asked for letter by letter, by far the most: neither port nor escapes in the
# host, and in the path no part that begins with a dot or an escape
PLAIN = re.compile(
    r"https?://(?=[^/]{1,253}/)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,20}"
    r"(?:/(?![.%])[A-Za-z0-9._~!$&()*+,;=:@%-]*)+(?:\?[A-Za-z0-9._~!$&()*+,;=:@%/?-]+)?"
)
# of a name beyond ASCII; what is ASCII itself is never escaped in the name of a host
ESCAPED_NAME = re.compile(r"(?:%[89a-f][0-9a-f])+", re.IGNORECASE)


def as_asked(url: str) -> URL:
    """`url` as a browser would ask for it, without its fragment; nothing is checked.

    Its scheme, host and port are those that the client's own parser finds, and nothing else of what
    was written is left in its authority. Spaces and what is not ASCII are encoded, `.` and `..`
    resolved, and a backslash in the path is a slash.

    Raises:
        ValueError: it is malformed; the parser raises IndexError too, on some.
    """
    if PLAIN.fullmatch(url):
        return URL(url, encoded=True)
    url = url.strip(" ")
    if CONTROLS.search(url):
        raise ValueError("it has control characters")
    if len(re.split(r"[/?#]", url.partition("//")[2], maxsplit=1)[0]) > LONGEST_AUTHORITY:
        raise ValueError("its host is too long")
    written = URL(url, encoded=True)
    if re.search(r"\s", written.raw_authority):
        raise ValueError("it has spaces in its host")
    origin = URL(f"{written.scheme}://{written.raw_authority}")
    host = origin.raw_host or ""
    if "%" in host and ":" not in host:
        name = ESCAPED_NAME.sub(lambda found: unquote_to_bytes(found[0]).decode(), host)
        origin = origin.with_host(name)
    if origin.is_default_port():
        origin = origin.with_port(None)
    path = quote(_resolved(written.raw_path.replace("\\", "/")), safe=PATH_KEPT)
    query = quote(written.raw_query_string, safe=QUERY_KEPT)
    if not query and url.partition("#")[0].endswith("?"):
        path += "?"  # which the parser takes for no query; to a server it is another address
    return URL.build(
        scheme=origin.scheme,
        authority=origin.raw_authority,
        path=path,
        query_string=query,
        encoded=True,
    )


def target_of(address: str, link: str) -> str:
    """Where `link`, a header's, leads from `address`.

    Bytes that are no UTF-8 (half surrogate pairs, in the text of a header) stay what they are, in
    escapes; tabs are left out and backslashes are slashes, as in browsers.

    Raises:
        ValueError: it is malformed.
    """
    sent = link.encode("utf-8", "surrogateescape")
    link = re.sub(rb"[\x80-\xff]", lambda byte: b"%%%02X" % byte[0][0], sent).decode()
    link, base = link.replace("\t", "").strip(" "), str(as_asked(address))
    absolute = SCHEME.match(link)
    if not absolute and not link.startswith("//"):
        path, mark, rest = _parted(link)
        link = path.replace("\\", "/") + mark + rest
    if absolute or link[:1] in ("", "/", "?", "#"):
        return urljoin(base, link)
    # where urljoin would drop the empty parts of a path
    return f"{base.partition('?')[0].rpartition('/')[0]}/{link}"


def _parted(link: str) -> tuple[str, str, str]:
    """A link's path, and what follows it: a mark, and what the mark begins."""
    end = re.search(r"[?#]", link)
    at = end.start() if end else len(link)
    return link[:at], link[at : at + 1], link[at + 1 :]


def _resolved(path: str) -> str:
    """A path without `.` and `..`, however they are written."""
    if "/." not in path and "/%2" not in path:
        return path
    parts = list[str]()
    for part in path.split("/")[1:]:
        plain = part.lower().replace("%2e", ".")
        if plain == "..":
            del parts[-1:]
        elif plain != ".":
            parts.append(part)
    if plain in (".", ".."):
        parts.append("")
    return "/" + "/".join(parts)

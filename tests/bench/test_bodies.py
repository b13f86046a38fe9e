"""images → request bodies."""

import base64
import json
from email.parser import BytesParser

from bench import bodies


def parts_of(body):
    """The files of a form, by the standard library's own parser of MIME."""
    head = f"Content-Type: {body.content_type}\r\n\r\n".encode()
    return BytesParser().parsebytes(head + body.content).get_payload()


def test_a_form_holds_the_image_unchanged():
    """Bytes that look like line ends or boundaries' dashes included."""
    image = bytes(range(256)) + b"\r\n--\r\n"

    (part,) = parts_of(bodies.multipart(image))

    assert part.get_payload(decode=True) == image
    assert part.get_param("name", header="content-disposition") == "file"


def test_a_batch_is_a_form_with_many_files():
    """And counts as that many answers."""
    body = bodies.batch([b"one", b"two", b"three"])

    payloads = [part.get_payload(decode=True) for part in parts_of(body)]

    assert payloads == [b"one", b"two", b"three"]
    assert (body.images, body.path) == (3, "/classify/batch")


def test_json_holds_the_image_in_base64():
    """As the service reads it."""
    body = bodies.encoded(b"\x00\xff")

    assert base64.b64decode(json.loads(body.content)["image"]) == b"\x00\xff"


def test_batches_differ_and_go_round():
    """Three images make three batches of four, each beginning with another one."""
    made = bodies.batches([b"a", b"b", b"c"], size=4)

    payloads = [[p.get_payload(decode=True) for p in parts_of(body)] for body in made]

    assert payloads == [
        [b"a", b"b", b"c", b"a"],
        [b"b", b"c", b"a", b"b"],
        [b"c", b"a", b"b", b"c"],
    ]


def test_a_request_says_how_long_it_is():
    """Head and body in one write."""
    request = bodies.raw(b"12345").request

    head, _, content = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /classify HTTP/1.1\r\n")
    assert b"Content-Length: 5" in head
    assert content == b"12345"

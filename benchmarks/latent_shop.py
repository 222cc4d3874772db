"""A shop for benchmarks with a constant latency and almost no CPU cost.

In: latency in seconds, images per product.
Out: the port on standard output; serves until standard input ends.
Command: python benchmarks/latent_shop.py 0.1 2        (scrape_speed.py starts it)
"""

import asyncio
import io
import json
import sys

import numpy as np
from PIL import Image


def _image() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((400, 400)).save(buffer, "JPEG")
    return buffer.getvalue()


async def _serve(latency_s: float, n_images: int) -> None:
    image = _image()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split(b" ", 2)[1].decode()
                await asyncio.sleep(latency_s)
                writer.write(_answer(path, image, n_images))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def _answer(path: str, image: bytes, n_images: int) -> bytes:
    content, status = image, "200 OK"
    if path == "/robots.txt":
        content, status = b"", "404 Not Found"
    elif path.endswith(".html"):
        listed = [f"{path.removesuffix('.html')}/{n}.jpg" for n in range(n_images)]
        block = json.dumps({"@type": "Product", "name": "A", "image": listed})
        content = f'<script type="application/ld+json">{block}</script>'.encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1]), int(sys.argv[2])))

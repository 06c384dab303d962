"""A server on loopback for URLs among the inputs: good answers, and bad ones."""

import asyncio
import contextlib
import gzip

from tests.pictures import png


@contextlib.asynccontextmanager
async def url_server():
    """Serve good and bad answers on loopback; yield "host:port"."""
    answering = set()

    async def answer(reader, writer):
        answering.add(asyncio.current_task())
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                head = await reader.readuntil(b"\r\n\r\n")
                case = head.split(b" ")[1].decode().strip("/")
                here = "http://{}:{}".format(*writer.get_extra_info("sockname"))
                async for data in answers(case, here):
                    writer.write(data)
                    await writer.drain()
        finally:
            writer.close()
            answering.discard(asyncio.current_task())

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield "{}:{}".format(*server.sockets[0].getsockname())
    finally:
        server.close()
        for task in answering:
            task.cancel()
        await asyncio.gather(*answering, return_exceptions=True)


async def answers(case, here):
    """Yield the bytes of an answer."""
    case, _, count = case.partition("/")
    good = png()
    match case:
        case "ok_png":
            yield http(good)
        case "redirect_ok":
            yield http(location=f"{here}/ok_png")
        case "redirect_to_loopback":
            yield http(location="http://127.0.0.1:8188/system_stats")
        case "redirect_to_metadata":
            yield http(location="http://169.254.169.254/latest/meta-data/")
        case "redirect_to_file":
            yield http(location="file:///etc/passwd")
        case "redirect_to_userinfo":
            yield http(location=here.replace("//", "//u:p@") + "/ok_png")
        case "redirect_loop":
            yield http(location=f"{here}/redirect_loop")
        case "redirect_chain_10":
            done = int(count or 0)
            step = "ok_png" if done == 10 else f"redirect_chain_10/{done + 1}"
            yield http(location=f"{here}/{step}")
        case "never_ending_body":
            yield http(length=None)
            for _ in range(4000):
                yield bytes(1 << 16)
        case "slow_drip":
            yield http(length=None)
            while True:
                yield b"\x89"
                await asyncio.sleep(1)
        case "gzip_bomb":
            packed = await asyncio.to_thread(gzip.compress, bytes(64 << 20), 1)
            yield http(packed, content_encoding="gzip")
        case "length_lies_small":
            yield http(good, length=10)
        case "length_lies_huge":
            yield http(good, length=1 << 40)
        case "status_404" | "status_500":
            yield http(b"no", status=int(case[-3:]))
        case "html_page":
            yield http(b"<html>", content_type="text/html")
        case "svg_as_png":
            yield http(b"<svg xmlns='http://www.w3.org/2000/svg'/>")
        case "header_flood":
            yield http(good, **{f"x_{n}": "a" * 200 for n in range(5000)})
        case "close_mid_body":
            yield http(good[:40], length=len(good))
        case _:
            raise AssertionError(f"no such answer: {case}")


def http(body=b"", status=200, length=-1, content_type="image/png", **heads):
    """Return a response; `length` says what is claimed, None = nothing is."""
    if "location" in heads:
        status = 302
    if length is not None:
        heads["content_length"] = len(body) if length < 0 else length
    heads |= {"content_type": content_type, "connection": "close"}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in heads.items()]
    head = "\r\n".join([f"HTTP/1.1 {status} X", *lines])
    return head.encode() + b"\r\n\r\n" + body

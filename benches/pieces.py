#!/usr/bin/env python3
"""Passes connections on to another port in pieces of 16 kB, a millisecond apart, as a proxy with TLS does: one piece,
one record.

    benches/pieces.py LISTEN_PORT TARGET_PORT
"""

import asyncio, socket, sys

PIECE, APART = 16 * 1024, 0.001


async def pass_on(reader, writer, apart):
    try:
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
            if apart:
                await asyncio.sleep(apart)
        writer.write_eof()
    except (ConnectionError, OSError):
        writer.close()


async def connection(reader, writer):
    there, back = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]), limit=PIECE)
    back.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    await asyncio.gather(pass_on(reader, back, APART), pass_on(there, writer, 0))
    back.close()
    writer.close()


async def main():
    server = await asyncio.start_server(connection, "127.0.0.1", int(sys.argv[1]), limit=PIECE)
    await server.serve_forever()


asyncio.run(main())

"""What one would write first: aio-pika and aiohttp, batches of 1000, no journal. A crash after a call loses its answer.

usage: worker.py AMQP_URL API_URL
"""
import asyncio
import hashlib
import json
import sys

import aio_pika
import aiohttp

MAX_EMAILS = 1000
LINGER = 0.25


async def work(amqp_url, api_url):
    connection = await aio_pika.connect(amqp_url)
    source = await connection.channel()
    await source.set_qos(prefetch_count=5000)
    target = await (await aio_pika.connect(amqp_url)).channel()
    exchange = await target.get_exchange("contacts.deletion.outcomes")
    queue = await source.get_queue("contacts.deletion.requests")
    arrived = asyncio.Queue()
    await queue.consume(arrived.put)

    async with aiohttp.ClientSession(headers={"Authorization": "Bearer sandbox-key"}) as session:

        async def settle(batch):
            requests = [(message, json.loads(message.body)) for message in batch]
            emails = list({email: None for _, request in requests for email in request["emails"]})
            key = hashlib.sha256("\n".join(message.message_id for message in batch).encode()).hexdigest()
            body = {"projectId": requests[0][1]["projectId"], "emails": emails}
            async with session.post(
                api_url + "/v1/contacts/bulk-delete", json=body, headers={"Idempotency-Key": key}
            ) as response:
                response.raise_for_status()
                answer = await response.json()
            not_found = set((answer.get("data") or answer).get("notFound") or [])

            def outcome(message, request):
                missing = [email for email in request["emails"] if email in not_found]
                text = {
                    "messageId": message.message_id,
                    "projectId": request["projectId"],
                    "status": "succeeded",
                    "deleted": len(request["emails"]) - len(missing),
                    "notFound": missing,
                }
                return aio_pika.Message(
                    json.dumps(text).encode(),
                    message_id=message.message_id,
                    content_type="application/json",
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                )

            await asyncio.gather(
                *(exchange.publish(outcome(message, request), "outcome.succeeded") for message, request in requests)
            )
            await batch[-1].ack(multiple=True)

        while True:
            batch = [await arrived.get()]
            deadline = asyncio.get_running_loop().time() + LINGER
            while len(batch) < MAX_EMAILS:
                try:
                    batch.append(arrived.get_nowait())
                except asyncio.QueueEmpty:
                    left = deadline - asyncio.get_running_loop().time()
                    try:
                        batch.append(await asyncio.wait_for(arrived.get(), max(left, 0)))
                    except asyncio.TimeoutError:
                        break
            await settle(batch)


asyncio.run(work(*sys.argv[1:]))

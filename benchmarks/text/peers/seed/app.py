"""One worker: an ASGI application of its own, so that no framework is measured."""

import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

torch.set_num_threads(1)
CHECKPOINT = os.environ["PEER_CHECKPOINT"]
TOKENIZER = AutoTokenizer.from_pretrained(CHECKPOINT)
MODEL = torch.ao.quantization.quantize_dynamic(
    AutoModelForSequenceClassification.from_pretrained(CHECKPOINT).eval(), {torch.nn.Linear}, dtype=torch.qint8
)
LABELS = MODEL.config.id2label
THREAD = ThreadPoolExecutor(1)  # the event loop goes on receiving while one text is computed


def classify(text: str) -> str:
    with torch.inference_mode():
        logits = MODEL(**TOKENIZER(text, truncation=True, return_tensors="pt")).logits
    return LABELS[int(logits.argmax())]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    label = await asyncio.get_running_loop().run_in_executor(THREAD, classify, json.loads(body)["text"])
    answer = json.dumps({"label": label}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})

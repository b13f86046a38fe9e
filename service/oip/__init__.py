"""request ⇄ response of the **Open Inference Protocol v2**, REST.

The protocol and nothing else: no socket, no engine. `docs/http.md` says what is taken.
The routes are `routes/oip.py` and `routes/infer.py`.

compression   compressed body → body
request       body → inference: images or pixels, and the outputs that are wanted
tensors       data of a tensor ⇄ images, pixels, numbers and texts
response      outcomes → answer
descriptions  what is loaded → what the protocol tells of it
shapes        the JSON of all bodies
documented    inference → OpenAPI
"""

"""The routes, a module a resource; each takes what it needs as an argument.

classify  `/classify`: one image → its answer
batch     `/classify/batch`: many images → an answer or an error for each
question  query → which model is asked, and how it shall answer; of both
models    `/models`: what is loaded
health    `/livez`, `/readyz`, `/metrics`
infer     `/v2/models/{name}/infer`: images or pixels → scores and logits
oip       all else below `/v2`: health and descriptions
pages     `/`, `/docs`, `/openapi.json`
"""

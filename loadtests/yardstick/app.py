"""What a redirect from Redis is in Python: the least that a Flask service does, and none of what else Snip does for one
(click, metrics, memory of its own, coherence). Reads the values that Snip writes."""

import json
import os

import flask
import redis

app = flask.Flask(__name__)
cache = redis.Redis(unix_socket_path=os.environ["REDIS_SOCKET"])


@app.get("/<code>")
def follow(code):
    held = cache.get(f"url:{code}")
    if held is None:
        flask.abort(404)
    return flask.redirect(json.loads(held)["original_url"])

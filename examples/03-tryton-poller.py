"""
03: a client of Tryton's bus in Python's standard library, as the desktop client polls it.

It listens for its user and its client by long polls, each of which goes on from the last message. Meanwhile a service
notifies it over REST: each notification comes once, in order. Ends with 1 when anything is missing or too much.

    npm start                                 # in one terminal
    set -a; . .posthorn/dev.env; set +a       # in another one
    python3 examples/03-tryton-poller.py
"""

import base64
import json
import os
import sys
import threading
import urllib.error
import urllib.request
import uuid

URL = os.environ.get("POSTHORN_URL", "http://localhost:8080")
if "POSTHORN_TOKEN_SERVICE" not in os.environ:
    sys.exit("POSTHORN_TOKEN_SERVICE is not set: source the dev.env that npm start wrote")
SERVICE = os.environ["POSTHORN_TOKEN_SERVICE"]
SESSION = os.environ["POSTHORN_TOKEN_ALICE"]


def claims(token):
    body = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


# A session is a JWT: whose it is and for which database stands in it.
DATABASE = claims(SESSION)["aud"]
USER = claims(SESSION)["sub"]
CLIENT = str(uuid.uuid4())


def call(path, body, authorization, **headers):
    """Status and answer of a POST."""
    request = urllib.request.Request(
        URL + path,
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": authorization, **headers},
    )
    try:
        with urllib.request.urlopen(request, timeout=320) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def session(login, user, token):
    return "Session " + base64.b64encode(f"{login}:{user}:{token}".encode()).decode()


class Poller(threading.Thread):
    """Polls until it has as many messages of this run as it is to get."""

    def __init__(self, run, count):
        super().__init__(daemon=True)
        self.run_id, self.count, self.received, self.error = run, count, [], None

    def run(self):
        last_message = None
        while len(self.received) < self.count:
            status, answer = call(
                f"/{DATABASE}/bus",
                # Another user's channel is dropped, the own one is added.
                {"last_message": last_message, "channels": ["user:somebody-else", f"client:{CLIENT}"]},
                session("alice@example.org", USER, SESSION),
            )
            if status != 200:
                self.error = answer
                return
            message = answer["message"]
            if message is None:
                continue
            last_message = message["message_id"]
            # What another run sent a moment ago is not ours.
            if message["type"] == "notification" and message["title"].startswith(self.run_id):
                self.received.append((answer["channel"], message["title"], message["body"], message["priority"]))


wrong = []


def expect_equal(what, got, wanted):
    if got == wanted:
        print(f"  ok   {what}: {got}")
    else:
        print(f"  FAIL {what}: {got}, expected {wanted}")
        wrong.append(what)


run = uuid.uuid4().hex[:8]
notifications = [
    {"title": f"{run} sale 1 confirmed", "user": USER},
    {"title": f"{run} report ready", "body": "Two lines,\nno markup", "priority": 3, "client": CLIENT},
    {"title": f"{run} sale 2 confirmed", "priority": 0, "user": USER},
    {"title": f"{run} stock is low", "user": USER},
]

poller = Poller(run, len(notifications) + 1)
poller.start()
statuses = [call("/v1/notify", body, f"Bearer {SERVICE}")[0] for body in notifications]
# A user notifies itself: here only the client that the call comes from.
own = {"title": f"{run} import done"}
statuses.append(call("/v1/notify", own, f"Bearer {SESSION}", **{"Posthorn-Client": CLIENT})[0])
poller.join(30)

expect_equal("notifications are taken", statuses, [202] * 5)
expect_equal("polls that failed", [poller.error] if poller.error else [], [])
expect_equal(
    "each comes once, in order",
    poller.received,
    [
        (f"user:{USER}", f"{run} sale 1 confirmed", None, 1),
        (f"client:{CLIENT}", f"{run} report ready", "Two lines,\nno markup", 3),
        (f"user:{USER}", f"{run} sale 2 confirmed", None, 0),
        (f"user:{USER}", f"{run} stock is low", None, 1),
        (f"client:{CLIENT}", f"{run} import done", None, 1),
    ],
)
bus = {"last_message": None, "channels": []}
expect_equal(
    "a session of another user is refused",
    call(f"/{DATABASE}/bus", bus, session("bob", "bob", SESSION))[0],
    401,
)
expect_equal(
    "another user is notified by services only",
    call("/v1/notify", {"title": "x", "user": "bob"}, f"Bearer {SESSION}")[0],
    403,
)
status, problem = call("/v1/notify", {"title": "two\nlines", "priority": 7}, f"Bearer {SERVICE}")
expect_equal("what is wrong is said", (status, [e["path"] for e in problem["errors"]]), (422, ["/title", "/priority"]))

if wrong:
    sys.exit("not as expected: " + ", ".join(wrong))

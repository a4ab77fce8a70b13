"""Receives tilecast's events and checks their signatures by the rules of Standard Webhooks.

webhooks.py PORT SECRET      prints `good TYPE ID` or `bad TYPE ID` for each
"""

import base64
import hashlib
import hmac
import http.server
import json
import sys
import time

KEY = base64.b64decode(sys.argv[2].removeprefix("whsec_"))


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        name, sent = self.headers["webhook-id"], self.headers["webhook-timestamp"]
        mac = hmac.new(KEY, f"{name}.{sent}.".encode() + body, hashlib.sha256).digest()
        signed = "v1," + base64.b64encode(mac).decode()
        is_good = signed in self.headers["webhook-signature"].split() and abs(time.time() - int(sent)) < 300
        print("good" if is_good else "bad", json.loads(body)["type"], name, flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()

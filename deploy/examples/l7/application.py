"""The application of .5 and .6, port 8080: says who answered, through which nginx, for whom.

python3 application.py
"""

import socket
import socketserver


class Request(socketserver.StreamRequestHandler):
    def handle(self):
        self.rfile.readline()
        headers = {}
        while (line := self.rfile.readline().decode().strip()):
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        web = headers.get("x-web-server", "no web server")
        client = headers.get("x-forwarded-for", self.client_address[0])
        body = f"{socket.gethostname()} through {web} for {client}\n"
        head = f"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
        self.wfile.write((head + body).encode())


class Application(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


Application(("", 8080), Request).serve_forever()

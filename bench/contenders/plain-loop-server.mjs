/** A broadcast server as one writes it by hand with the package `ws`: parse the publish, loop over the topic. */
import { WebSocket, WebSocketServer } from 'ws';

/** @type {Map<string, Set<WebSocket>>} */
const topics = new Map();
const server = new WebSocketServer({
  host: '127.0.0.1',
  port: Number(process.argv[2]),
  perMessageDeflate: false,
});

server.on('connection', (socket) => {
  /** @type {Set<string>} */
  const subscribed = new Set();
  socket.on('message', (data) => {
    const { action, topic, message } = JSON.parse(String(data));
    if (action === 'subscribe') {
      const sockets = topics.get(topic) ?? new Set();
      topics.set(topic, sockets.add(socket));
      subscribed.add(topic);
      socket.send(JSON.stringify({ action: 'subscribed', topic }));
    } else if (action === 'publish') {
      const buffer = Buffer.from(JSON.stringify({ action: 'message', topic, message }));
      for (const client of topics.get(topic) ?? []) {
        if (client.readyState === WebSocket.OPEN) client.send(buffer, { binary: false });
      }
    }
  });
  socket.on('close', () => {
    for (const topic of subscribed) topics.get(topic)?.delete(socket);
  });
  socket.on('error', () => {});
});

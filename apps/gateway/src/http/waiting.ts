/** How many calls of one connection wait for their answers (docs/security.md, "Limits at the door"). */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { FastifyInstance } from 'fastify';

/**
 * Room for clients that send some calls in one go. Answers wait in memory until the ones before them are read, and one
 * part of what comes in may hold a thousand calls: Node stops reading behind it, and not within.
 */
const WAITING = 32;

/** Cuts a connection with more than that, before its further calls are looked at. */
export function limitWaiting(fastify: FastifyInstance, cut: () => void): void {
  const waiting = new WeakMap<Socket, number>();
  fastify.server.prependListener('request', ({ socket }: IncomingMessage, response: ServerResponse) => {
    const count = (waiting.get(socket) ?? 0) + 1;
    waiting.set(socket, count);
    response.once('close', () => waiting.set(socket, waiting.get(socket)! - 1));
    if (count <= WAITING || socket.destroyed) return;
    socket.destroy();
    cut();
  });
  fastify.addHook('onRequest', ({ raw }, reply, done) => {
    if (raw.socket.destroyed) reply.hijack();
    done();
  });
}

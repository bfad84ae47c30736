/** Connections on which answers are waited for: of one that pipelines, several. */
import type { Socket } from 'node:net';

interface Awaited {
  /** The time-out that the connection had, in milliseconds. */
  readonly idle: number;
  readonly gone: Set<() => void>;
  readonly close: () => void;
}

const awaited = new WeakMap<Socket, Awaited>();

/**
 * Lets a connection be silent while an answer is waited for on it, since there is nothing to say, and tells when the
 * client has hung up. Its time-out is back once nothing is waited for.
 * @returns to be called when the answer is there; later calls change nothing
 */
export function awaitOn(socket: Socket, gone: () => void): () => void {
  const { gone: all } = awaited.get(socket) ?? begin(socket);
  const one = () => gone();
  all.add(one);
  return () => {
    if (all.delete(one) && all.size === 0) end(socket);
  };
}

function begin(socket: Socket): Awaited {
  const gone = new Set<() => void>();
  const close = () => {
    for (const one of [...gone]) one();
  };
  const begun: Awaited = { idle: socket.timeout ?? 0, gone, close };
  socket.setTimeout(0);
  socket.once('close', close);
  awaited.set(socket, begun);
  return begun;
}

function end(socket: Socket): void {
  const { idle, close } = awaited.get(socket)!;
  awaited.delete(socket);
  socket.off('close', close);
  socket.setTimeout(idle);
}

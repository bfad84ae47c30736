/** Clients that are gone before the server knows who they are. */
import { once } from 'node:events';
import { connect } from 'node:net';

const CLIENTS = 40;

/** Sends one request by many connections, one after the other, and cuts each as soon as it is written. */
export async function hangUpAtOnce(host: string, port: number, request: string): Promise<void> {
  for (let i = 0; i < CLIENTS; i++) {
    const socket = connect(port, host);
    await once(socket, 'connect');
    const closed = once(socket, 'close');
    socket.write(request, () => setImmediate(() => socket.destroy()));
    await closed;
  }
}
